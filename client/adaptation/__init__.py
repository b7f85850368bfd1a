"""ADAPTATIONS: name to method of test-time adaptation, built by `build_adaptation(name, model, source, values)`."""

from common.registry import Registry

_HERE = "client.adaptation."
ADAPTATIONS = Registry(
    "adaptation",
    {
        "none": _HERE + "none:Unchanged",
        "tent": _HERE + "tent:Tent",
    },
)
