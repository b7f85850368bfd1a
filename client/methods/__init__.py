"""METHODS: what a strategy asks of its sites beside plain training, built by `Method(begun: Begun)`."""

from common.registry import Registry

METHODS = Registry(
    "method at the sites",
    {
        "control-variates": "client.methods.control_variates:ControlVariates",
        "normalised-steps": "client.methods.normalised_steps:NormalisedSteps",
        "dynamic-regulariser": "client.methods.dynamic_regulariser:DynamicRegulariser",
        "first-loss": "client.methods.first_loss:FirstLoss",
    },
)
