"""Amplitude and phase of images: the amplitude of low frequencies is the scanner's look, the phase is what is shown.

Source: Yang and Soatto 2020, "FDA: Fourier Domain Adaptation"; Xu et al. 2021, "A Fourier-based Framework for Domain
Generalization" (FACT).
"""

import torch
from torch import Tensor

from common.data.base import Batch

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


def mix_amplitude(batch: Batch, reach: float, random: torch.Generator) -> Batch:
    """Let half of the images, drawn by chance, take some of another image's amplitude in low frequencies.

    Each takes a share of its own, uniform in [0, 1], of the amplitude of one image of the batch drawn at random (itself
    too). Masks and labels stay, for the phase does. Values are cut to [-1, 1].

    Args:
        batch: Images of one site: nothing leaves it.
        reach: Frequencies of up to this, in cycles per pixel along each axis; 0.5 are all.
        random: Draws pairs and shares, on the CPU.
    """
    count, _, height, width = batch.images.shape
    takes = torch.rand(count, generator=random) < 0.5
    share = torch.rand(count, generator=random) * takes
    other = torch.randint(count, (count,), generator=random)
    device = batch.images.device
    share, other = share.to(device)[:, None, None, None], other.to(device)
    found = spectrum(batch.images.add(1).div_(2))  # in [0, 1]: the mean's sign is then no phase that could turn over
    low = (torch.fft.fftfreq(height, device=device).abs() <= reach)[:, None] & (
        torch.fft.rfftfreq(width, device=device).abs() <= reach
    )
    own = found.abs()
    mixed = with_amplitude(found, torch.lerp(own, own[other], share * low), (height, width))
    changed = mixed.mul_(2).sub_(1).clamp_(-1, 1)
    return Batch(
        images=torch.where(takes.to(device)[:, None, None, None], changed, batch.images),
        labels=batch.labels,
        masks=batch.masks,
    )
