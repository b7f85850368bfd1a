"""Anatomy in the scores: attention leans towards where what is looked for can be, by as much as it learns to."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, Grid
from common.attention.personal import put_before
from common.errors import AttentionError

LEAST = 1e-3
START = 0.5
FIELD = 0.5
"""Half axes of the disc, in shares of the image's sides: it touches all four."""


class AnatomyBias(nn.Module):
    """scores + β log(M + 1e-3), M in [0, 1] the region at each key, β learnt and 0.5 at first.

    A class token has no place: M = 1 there. The region is a constant of the model and no part of its arrays.

    Shapes: scores [B, heads, N, N] -> the same.
    """

    def __init__(self, region: Tensor) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([START]))
        self.lean = (region + LEAST).log()  # no buffer: layers with one are closed to per-sample gradients

    def forward(self, scores: Tensor) -> Tensor:
        """Lean towards the region."""
        return scores + self.beta * self.lean.to(scores)


def lean_on_anatomy(model: AttentionModel, region: Tensor) -> None:
    """Put the bias into every self-attention of a model over a grid in the plane.

    Args:
        model: Changed in place; layers with a fused path take the explicit one from here on.
        region: float32 [H, W] in [0, 1] over the image.

    Raises:
        AttentionError: The model has no such layer.
    """
    done = [
        put_before(model, site, AnatomyBias(at_keys(region, site.grid, site.cls)))
        for site in model.attention_sites
        if site.kind == "self-attention" and site.grid is not None and len(site.grid) == 2
    ]
    if not any(done):
        raise AttentionError(
            f"{type(model).__name__} has no self-attention over places, whose scores could lean on anatomy. Set "
            f"`model.anatomy-bias` to '', or take a model such as vit-tiny."
        )


def at_keys(region: Tensor, grid: Grid, cls: bool) -> Tensor:
    """Average a region over the cells of a grid of keys, a class token in front. Shapes: [H, W] -> [N]."""
    cells = F.adaptive_avg_pool2d(region[None, None], (grid[0], grid[1])).flatten()
    return F.pad(cells, (int(cls), 0), value=1.0)


def disc(height: int, width: int) -> Tensor:
    """Give the field of view: 1 inside the ellipse that touches the image's sides, 0 outside. [H, W]."""
    rows = (torch.arange(height) + 0.5) / height - 0.5
    columns = (torch.arange(width) + 0.5) / width - 0.5
    return (rows[:, None].square() + columns.square() <= FIELD**2).float()
