"""The pre-activation bottleneck that residual attention is made of."""

from typing import cast

from torch import Tensor, nn

from common.attention.spatial import CONVOLUTIONS, Norm, one_group


class ResidualUnit(nn.Module):
    """Add to the features what three convolutions, each after a norm and a ReLU, make of them.

    Shapes: features [B, C, *S] -> [B, C, *S].
    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", fig. 4e, in its bottleneck form.
    """

    def __init__(self, channels: int, dims: int = 2, norm: Norm = one_group, reduction: int = 4) -> None:
        super().__init__()
        inner = max(2, channels // reduction)  # one value at one position would leave a norm nothing to compare
        conv = CONVOLUTIONS[dims]
        self.norm1, self.conv1 = norm(channels), conv(channels, inner, 1, bias=False)
        self.norm2, self.conv2 = norm(inner), conv(inner, inner, 3, padding=1, bias=False)
        self.norm3, self.conv3 = norm(inner), conv(inner, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Add the three convolutions' answer."""
        x = self.conv1(self.norm1(features).relu())
        x = self.conv2(self.norm2(x).relu())
        return features + cast(Tensor, self.conv3(self.norm3(x).relu()))
