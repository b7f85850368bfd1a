"""BatchNorm in a model that is declared to have it: for comparisons, since much of the literature assumes it."""

from torch import nn

from common.attention.base import AttentionLayer
from common.errors import ConfigError


def use_batch_norm(model: nn.Module) -> None:
    """Put BatchNorm in the place of every GroupNorm of the body; attention layers keep theirs.

    Images then see each other while training, and running statistics of the sites travel with the weights: no
    patient-level privacy, and `fedbn` has something to keep. Never a default.

    Raises:
        ConfigError: The body has no GroupNorm.
    """
    inside = {id(part) for layer in model.modules() if isinstance(layer, AttentionLayer) for part in layer.modules()}
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.GroupNorm) and id(module) not in inside
    ]
    if not found:
        raise ConfigError(
            "setting 'model.batch-norm' is true and the model has no GroupNorm that BatchNorm could replace. Allowed "
            "are bodies with one, such as convnet, resnet-ws and unet; set it to false."
        )
    for path, module in found:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.BatchNorm2d(module.num_channels))
