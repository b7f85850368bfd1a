"""Amplitude normalisation: every image is shown to the model with the same amplitude, and with its own phase.

Source: Jiang et al. 2022, "HarmoFL: Harmonizing Local and Global Drifts in Federated Learning on Heterogeneous Medical
Images", eqs. 4 and 5.
"""

import torch
from torch import Tensor, nn

from common.spectrum import spectrum, with_amplitude

MOVES = 0.1
"""How far the mean moves to each batch, as the authors' code has it."""


class AmplitudeNorm(nn.Module):
    """Stands before a model. `mean` travels with the model's arrays, so that whoever judges it uses the same one.

    While `mean` is zero images pass as they are. While `moving`, and only then, it follows the batches.

    Shapes: images [B, C, H, W] in [-1, 1] -> the same, with values that may leave [-1, 1] a little.
    """

    mean: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.moving = False
        self.register_buffer("mean", torch.zeros(channels, height, width // 2 + 1))

    def forward(self, images: Tensor) -> Tensor:
        """Replace the amplitude."""
        found = spectrum(images.float().add(1).div(2))
        if self.moving:
            self._follow(found.detach().abs().mean(0))
        if not self.mean.any():
            return images
        return with_amplitude(found, self.mean, images.shape).mul(2).sub(1).to(images.dtype)

    @torch.no_grad()
    def _follow(self, batch: Tensor) -> None:
        self.mean.copy_(torch.lerp(self.mean, batch, MOVES) if self.mean.any() else batch)
