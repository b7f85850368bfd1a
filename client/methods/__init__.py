"""METHODS: what a strategy asks of its sites beside plain training, built by `Method(begun: Begun)`."""

from common.registry import Registry

METHODS = Registry(
    "method at the sites",
    {
        "control-variates": "client.methods.control_variates:ControlVariates",
        "normalised-steps": "client.methods.normalised_steps:NormalisedSteps",
        "dynamic-regulariser": "client.methods.dynamic_regulariser:DynamicRegulariser",
        "amplitude": "client.methods.amplitude:Amplitude",
        "contrast": "client.methods.contrast:Contrast",
        "prototypes": "client.methods.prototypes:Prototypes",
        "simple-representation": "client.methods.simple_representation:SimpleRepresentation",
        "first-loss": "client.methods.first_loss:FirstLoss",
    },
)
