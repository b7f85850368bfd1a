"""Convolutions that normalise their weights instead of their activations: every image stays on its own."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def standardise(weight: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Bring each filter to mean 0 and norm 1, times its gain. Shapes: weight [outputs, …], gain [outputs]."""
    flat = weight.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    scale = gain * (centred.square().sum(1) + epsilon).rsqrt()
    return (centred * scale[:, None]).view_as(weight)


class WeightStandardisedConv2d(nn.Conv2d):
    """Convolution whose filters have mean 0 and variance 1 / fan-in, times a learnt gain per filter.

    No statistic ever crosses images, so it fits differential privacy and small batches; it holds no running buffer.

    Source: Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization"; the
    division by the root of the fan-in and the gain: Brock et al. 2021, "High-Performance Large-Scale Image Recognition
    Without Normalization", section 2 (scaled weight standardisation).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        self.gain = nn.Parameter(torch.full((outputs,), gain))
        self.epsilon = 1e-4
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def standardised(self) -> Tensor:
        """Give the weights that the convolution uses, [outputs, inputs, kernel, kernel]."""
        return standardise(self.weight, self.gain, self.epsilon)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve. Shapes: [B, inputs, H, W] -> [B, outputs, H', W']."""
        return F.conv2d(features, self.standardised(), self.bias, self.stride, self.padding)


class WeightStandardisedConv3d(nn.Conv3d):
    """The same for volumes. Source: as `WeightStandardisedConv2d`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        self.gain = nn.Parameter(torch.full((outputs,), gain))
        self.epsilon = 1e-4
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Convolve. Shapes: [B, inputs, D, H, W] -> [B, outputs, D', H', W']."""
        weight = standardise(self.weight, self.gain, self.epsilon)
        return F.conv3d(features, weight, self.bias, self.stride, self.padding)


WEIGHT_STANDARDISED = {2: WeightStandardisedConv2d, 3: WeightStandardisedConv3d}
"""By the number of axes of the images."""
