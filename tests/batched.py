"""The default model with BatchNorm in the place of GroupNorm: norms that keep statistics."""

from torch import nn

from common.attention.base import AttentionModel
from common.config import ModelSection
from common.models.convnet import convnet


def batched(settings: ModelSection, channels: int, outputs: int, image_size: int) -> AttentionModel:
    """Build it; for `MODELS`, under the name `batched`."""
    model = convnet(settings.model_copy(update={"name": "se-convnet"}), channels, outputs, image_size)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.BatchNorm2d(child.num_channels))
    return model
