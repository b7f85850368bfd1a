"""The default: weight-standardised convolutions with squeeze-and-excitation, no statistic across images."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, AttentionSite
from common.attention.squeeze_excitation import SqueezeExcitation
from common.config import ModelSection
from common.models.group_norm import normalised
from common.models.pooling import generalised_mean
from common.models.weight_standardised import WeightStandardisedConv2d

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""Brings the variance of relu(x), x standard normal, back to one (Brock et al. 2021, section 3).

Convolutions that follow a ReLU start with it as their gain, which is the same and saves a pass over the activations.
"""


def after_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> WeightStandardisedConv2d:
    """Give a convolution that keeps the variance of what comes before the ReLU in front of it."""
    return WeightStandardisedConv2d(inputs, outputs, kernel, stride, gain=RELU_GAIN)


class Stage(nn.Module):
    """A pre-activation residual block whose branch ends in squeeze-and-excitation.

    The gates start near one half, so the branch enters with half the shortcut's strength and the variance grows slowly.
    GroupNorm stands inside the branch only: the road of the shortcuts carries brightness and colour to the head.

    Shapes: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)].
    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", figure 4e.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shrink = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        changes = stride > 1 or inputs != outputs
        self.shortcut = after_relu(inputs, outputs, kernel=1) if changes else None
        self.first = normalised(inputs, outputs, stride=stride)
        self.second = after_relu(outputs, outputs)
        self.se = SqueezeExcitation(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Add the gated branch to the shortcut."""
        ready = F.relu(features)
        kept = features if self.shortcut is None else self.shortcut(self.shrink(ready))
        mixed: Tensor = kept + self.se(self.second(F.relu(self.first(ready))))
        return mixed


class SeConvNet(AttentionModel):
    """Three stages of `width`, 2 and 4 `width` channels at 1/2, 1/4 and 1/8 of the image's side.

    Shapes: images [B, C, H, W] -> logits [B, outputs]; features [B, 4 width].
    Source: after the adaptive normalisation-free networks of Siomos et al. 2024 (ANFR): scaled weight standardisation
    with channel attention. The GroupNorm inside the branches is ours; docs/reference/models.md has the measurements.
    """

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        self.stem = WeightStandardisedConv2d(channels, width, kernel=5, stride=2)
        self.stage1 = Stage(width, width, stride=1)
        self.stage2 = Stage(width, 2 * width, stride=2)
        self.stage3 = Stage(2 * width, 4 * width, stride=2)
        self.head = nn.Linear(4 * width, outputs)
        self.attention_sites = tuple(
            AttentionSite(f"{stage}.se", "channel-gate", f"{stage}.se.gate", features=f"{stage}.second")
            for stage in ("stage1", "stage2", "stage3")
        )

    def features(self, images: Tensor) -> Tensor:
        """Sum up the last stage's activations."""
        return generalised_mean(F.relu(self.stage3(self.stage2(self.stage1(self.stem(images))))))

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.head(self.features(images))
        return logits


def se_convnet(settings: ModelSection, channels: int, outputs: int, image_size: int) -> SeConvNet:
    """Build the default classifier; any image size from 16 pixels up."""
    return SeConvNet(channels, outputs, settings.width)
