"""Jitter of acquisition: what another scanner, lens or technician would have changed, a little, on some images.

Each image gets three of the changes, drawn without replacement, each with its own strength, uniform in its range. They
are applied in the order of the table, which is that of their causes. None changes what a label says: lesions stay where
the mask says, in shape and contrast enough to be seen.

Source: three of many at random strengths, after Cubuk et al. 2020, "RandAugment"; the changes are those of scanners, as
in `simulations/corruptions`, at less than their severity 2.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.base import Batch

CHANGES = 3
"""How many each image gets."""
TURN, SIZE = 10 * torch.pi / 180, 0.1
"""Largest turn in radians, and largest share by which an image grows or shrinks."""
LEAST = 1e-4
"""Of a pixel before a power: its gradient is none of training's, but 0 to a power is slow."""
COEFFICIENTS = 5
Change = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def jitter(batch: Batch, random: torch.Generator) -> Batch:
    """Change each image by three of the changes; masks follow turns and sizes. Values stay in [-1, 1]."""
    images, masks = batch.images.add(1).div_(2), batch.masks
    ranks = torch.rand(len(images), len(TABLE) + 1, generator=random).argsort(1)
    chosen = ranks < CHANGES
    rows = chosen[:, -1].nonzero()[:, 0].to(images.device)
    if len(rows):
        images, masks = turn(images, masks, rows, random)
    for number, change in enumerate(TABLE.values()):
        rows = chosen[:, number].nonzero()[:, 0]
        strength = torch.rand(len(rows), COEFFICIENTS, generator=random).mul_(2).sub_(1)
        if len(rows):
            rows = rows.to(images.device)
            images[rows] = change(images[rows], strength.to(images.device), random)
    return Batch(images=images.clamp_(0, 1).mul_(2).sub_(1), labels=batch.labels, masks=masks)


def turn(images: Tensor, masks: Tensor | None, rows: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Turn by up to 10° and grow or shrink by up to 10 % about the centre; the edge fills what is uncovered."""
    strength = torch.rand(len(rows), 2, generator=random).mul_(2).sub_(1).to(images.device)
    angle, size = strength[:, 0] * TURN, (strength[:, 1] * SIZE).exp()
    height, width = images.shape[2:]
    cosine, sine, none = angle.cos() / size, angle.sin() / size, torch.zeros_like(angle)
    # Coordinates run from -1 to 1 along both sides: a turn of pixels needs the ratio of the sides.
    first = torch.stack([cosine, -sine * height / width, none], 1)
    second = torch.stack([sine * width / height, cosine, none], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), [len(rows), 1, height, width], align_corners=False)
    images = images.clone()
    images[rows] = F.grid_sample(images[rows], grid, padding_mode="border", align_corners=False)
    if masks is not None:
        moved = F.grid_sample(
            masks[rows, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
        )
        masks = masks.clone()
        masks[rows] = moved[:, 0].to(masks.dtype)
    return images, masks


def bias_field(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Multiply by e^f, f a quadratic polynomial with |f| of at most 0.4: the sensitivity of a coil, or vignetting."""
    y = torch.linspace(-1, 1, images.shape[2], device=images.device)[:, None]
    x = torch.linspace(-1, 1, images.shape[3], device=images.device)[None, :]
    planes = torch.stack([(x + 0 * y), (y + 0 * x), x * y, x.square() + 0 * y, y.square() + 0 * x])
    field = torch.einsum("bk,khw->bhw", strength, planes) * (0.4 / COEFFICIENTS)
    return images * field.exp()[:, None]


def gamma(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Raise to a power between 2/3 and 3/2: another display curve."""
    return images.clamp(LEAST, 1).pow((strength[:, 0] * 0.405).exp()[:, None, None, None])


def exposure(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Multiply each channel by between 0.87 and 1.15: exposure of grey images, white balance of colour."""
    return images * (strength[:, : images.shape[1]] * 0.14).exp()[:, :, None, None]


def contrast(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Stretch or press values around the image's mean by between 0.7 and 1.43."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (strength[:, 0] * 0.357).exp()[:, None, None, None] + mean


def brightness(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Add between -0.1 and 0.1 of the range: another zero."""
    return images + 0.1 * strength[:, 0, None, None, None]


def blur(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Mix with the image's mean over 3 × 3 pixels, by up to 0.8 (softer) or down to -0.4 (sharper)."""
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = torch.where(strength[:, 0] > 0, 0.8, 0.4) * strength[:, 0]
    return torch.lerp(images, soft, amount[:, None, None, None])


def noise(images: Tensor, strength: Tensor, random: torch.Generator) -> Tensor:
    """Add normal noise of a standard deviation of up to 0.05 of the range."""
    drawn = torch.randn(images.shape, generator=random).to(images.device)
    return images + drawn * (0.05 * strength[:, 0].abs())[:, None, None, None]


TABLE: dict[str, Change] = {
    "bias-field": bias_field,
    "exposure": exposure,
    "blur": blur,
    "noise": noise,
    "gamma": gamma,
    "contrast": contrast,
    "brightness": brightness,
}
