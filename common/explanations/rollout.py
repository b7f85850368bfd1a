"""Attention rollout: attention followed through all layers, as if each mixed tokens and kept half of each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.attention.base import AttentionModel
from common.attention.recorder import Recorder
from common.explanations.base import asking, chain, check_targets, finished, on_grid, refuse_misfit, start_row


class Rollout:
    """Row of the class token, or the mean row, of Â_L ⋯ Â_1, Â = ½ mean_h A + ½ I.

    Knows no class. One forward pass; of the product only one row is computed: L N² in place of L N³.

    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", eq. 1.
    """

    def fits(self, model: AttentionModel) -> str:
        """Need self-attention over the same tokens from layer to layer."""
        return misfit(model, "rollout")

    def __call__(self, model: AttentionModel, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Follow attention from the last layer to the image; `targets` change nothing."""
        refuse_misfit(self, model, images, targets)
        sites = chain(model)
        with asking(model), torch.no_grad(), Recorder(model, sites) as recorder:
            check_targets(model(images), targets)
            rows = list(recorder.take().values())
        return finished(on_grid(sites[0], rollout_row(rows, start_row(sites[0], rows[0]))), images)


def misfit(model: AttentionModel, name: str) -> str:
    """Say why attention of a model cannot be followed through its layers; empty where it can."""
    if chain(model):
        return ""
    return (
        f"{type(model).__name__} has no self-attention over the same tokens from layer to layer. Explanation {name!r} "
        f"follows such rows, as vit-tiny has them; use 'raw', 'gates' or 'grad-cam'."
    )


def rollout_row(rows: Sequence[Tensor], start: Tensor) -> Tensor:
    """Give start · Â_L ⋯ Â_1, each Â with rows of sum one.

    Shapes: rows of the layers first to last, each [B, H, N, N]; start [B, N] -> [B, N].
    """
    row = start
    for layer in reversed(rows):
        mean = layer.float().mean(1)
        mean = mean / mean.sum(-1, keepdim=True)
        row = 0.5 * torch.einsum("bi,bij->bj", row, mean) + 0.5 * row
    return row
