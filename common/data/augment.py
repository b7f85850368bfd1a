"""Training augmentation: left-right flips and shifts of up to a twelfth of the side, per image, masks alike."""

import torch
from torch import Tensor

from common.config import TrainSection
from common.data.amplitude import mix_amplitude
from common.data.base import Batch
from common.data.jitter import jitter

SHARE = 12


def augmented(batch: Batch, settings: TrainSection, random: torch.Generator) -> Batch:
    """Change a batch as the settings say: flips and shifts, jitter of acquisition, mixed amplitudes, in this order."""
    if settings.augment:
        batch = augment(batch, random)
        if settings.augmentation == "medical":
            batch = jitter(batch, random)
    return mix_amplitude(batch, settings.amplitude_mix, random) if settings.amplitude_mix else batch


def augment(batch: Batch, random: torch.Generator) -> Batch:
    """Flip and shift each image with its mask; the edge that a shift uncovers is filled with the edge's own values."""
    count, _, height, width = batch.images.shape
    flips = torch.rand(count, generator=random) < 0.5
    reach = max(1, min(height, width) // SHARE)
    shifts = torch.randint(-reach, reach + 1, (count, 2), generator=random)
    device = batch.images.device
    rows = (torch.arange(height) + shifts[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width) + shifts[:, 1:]).clamp(0, width - 1)
    columns = torch.where(flips[:, None], width - 1 - columns, columns)
    rows, columns = rows.to(device, non_blocking=True), columns.to(device, non_blocking=True)
    masks = None if batch.masks is None else _gather(batch.masks[:, None], rows, columns)[:, 0]
    return Batch(images=_gather(batch.images, rows, columns), labels=batch.labels, masks=masks)


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pick [B, C, rows, columns] per image; two steps move less memory than one joint index."""
    count, channels, height, width = images.shape
    images = images.gather(2, rows[:, None, :, None].expand(count, channels, height, width))
    return images.gather(3, columns[:, None, None, :].expand(count, channels, height, width))
