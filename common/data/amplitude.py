"""Mixing the low-frequency amplitudes of a site's images: the look of another scanner, what is shown stays.

Source: Yang and Soatto 2020, "FDA: Fourier Domain Adaptation"; Xu et al. 2021, "A Fourier-based Framework for Domain
Generalization" (FACT).
"""

import torch

from common.data.base import Batch
from common.spectrum import spectrum, with_amplitude


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
