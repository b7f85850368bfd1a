"""Amplitude and phase of images: the amplitude of low frequencies is the scanner's look, the phase is what is shown."""

import torch
from torch import Tensor

NOTHING = 1e-20
"""An amplitude below which there is no phase."""


def spectrum(images: Tensor) -> Tensor:
    """Give the complex spectrum of images. Shapes: [..., H, W] -> [..., H, W // 2 + 1]."""
    found: Tensor = torch.fft.rfft2(images, norm="ortho")
    return found


def with_amplitude(found: Tensor, amplitude: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Give the images that have the phase of a spectrum and another amplitude; a zero of the spectrum has phase 0.

    Args:
        found: A spectrum, as `spectrum` gives it.
        amplitude: Not negative, of the same shape or one that broadcasts.
        size: (H, W) of the images.
    """
    own = found.abs()
    # The quotient, for angles and their sines cost five times as much.
    joined = torch.where(own > NOTHING, found * (amplitude / own.clamp_min(NOTHING)), amplitude.to(found.dtype))
    images: Tensor = torch.fft.irfft2(joined, s=tuple(size[-2:]), norm="ortho")
    return images
