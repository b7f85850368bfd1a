"""The default: weight-standardised convolutions with an attention layer, no statistic across images."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, Grid
from common.config import ModelSection
from common.models.group_norm import normalised
from common.models.placement import NONE, bag_pooling, choose, feature_block, is_bag, sites_of, spread
from common.models.pooling import GeneralisedMean, classifier_grids
from common.models.weight_standardised import WeightStandardisedConv2d

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""Brings the variance of relu(x), x standard normal, back to one (Brock et al. 2021, section 3).

Convolutions that follow a ReLU start with it as their gain, which is the same and saves a pass over the activations.
"""


def after_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> WeightStandardisedConv2d:
    """Give a convolution that keeps the variance of what comes before the ReLU in front of it."""
    return WeightStandardisedConv2d(inputs, outputs, kernel, stride, gain=RELU_GAIN)


class Stage(nn.Module):
    """A pre-activation residual block whose branch ends in attention; its submodule is called as the layer.

    Gates start near one half, so the branch enters with half the shortcut's strength and the variance grows slowly.
    GroupNorm stands inside the branch only: the road of the shortcuts carries brightness and colour to the head.

    Shapes: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)] = [B, outputs, *grid].
    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", figure 4e.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, attention: str, grid: Grid) -> None:
        super().__init__()
        self.shrink = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        changes = stride > 1 or inputs != outputs
        self.shortcut = after_relu(inputs, outputs, kernel=1) if changes else None
        self.first = normalised(inputs, outputs, stride=stride)
        self.second = after_relu(outputs, outputs)
        self.slot = attention
        self.add_module(attention, feature_block(attention, outputs, grid))

    def forward(self, features: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        ready = F.relu(features)
        kept = features if self.shortcut is None else self.shortcut(self.shrink(ready))
        mixed: Tensor = kept + self.get_submodule(self.slot)(self.second(F.relu(self.first(ready))))
        return mixed


class ConvNet(AttentionModel):
    """Three stages of `width`, 2 and 4 `width` channels at 1/2, 1/4 and 1/8 of the image's side.

    A layer of bags takes the place of the final pooling and leaves the stages without attention.

    Shapes: images [B, C, H, W] -> logits [B, outputs]; features [B, 4 width].
    Source: after the adaptive normalisation-free networks of Siomos et al. 2024 (ANFR): scaled weight standardisation
    with channel attention. The GroupNorm inside the branches is ours; docs/reference/models.md has the measurements.
    """

    def __init__(self, channels: int, outputs: int, width: int, attention: str, image_size: int) -> None:
        super().__init__()
        grids = classifier_grids(image_size)
        names = spread(NONE if is_bag(attention) else attention, grids)
        self.stem = WeightStandardisedConv2d(channels, width, kernel=5, stride=2)
        self.stage1 = Stage(width, width, 1, names[0], grids[0])
        self.stage2 = Stage(width, 2 * width, 2, names[1], grids[1])
        self.stage3 = Stage(2 * width, 4 * width, 2, names[2], grids[2])
        self.pool = bag_pooling(attention, 4 * width, grids[2]) if is_bag(attention) else GeneralisedMean()
        self.head = nn.Linear(4 * width, outputs)
        stages = (("stage1", self.stage1), ("stage2", self.stage2), ("stage3", self.stage3))
        self.attention_sites = tuple(
            site
            for (name, stage), grid in zip(stages, grids, strict=True)
            for site in sites_of(
                stage.get_submodule(stage.slot), f"{name}.{stage.slot}", f"{name}.{stage.slot}", grid, f"{name}.second"
            )
        ) + sites_of(self.pool, "pool", "pool", grids[2])

    def features(self, images: Tensor) -> Tensor:
        """Sum up the last stage's activations."""
        summary: Tensor = self.pool(F.relu(self.stage3(self.stage2(self.stage1(self.stem(self.before(images)))))))
        return summary

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.head(self.features(images))
        return logits


def convnet(settings: ModelSection, channels: int, outputs: int, image_size: int) -> ConvNet:
    """Build the default classifier, by itself with squeeze-and-excitation; any image size from 16 pixels up."""
    return ConvNet(channels, outputs, settings.width, choose(settings, "se", "classifier"), image_size)
