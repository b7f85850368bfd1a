"""Relevance: attention that matters for one answer, by its gradient, followed through all layers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.attention.base import AttentionModel
from common.attention.recorder import Recorder
from common.explanations.base import answers, asked, asking, chain, finished, on_grid, refuse_misfit, start_row
from common.explanations.rollout import misfit


class Relevance:
    """R ← R + Ā R from R = I, later layers on the left, Ā = mean_h (∇A ⊙ A)⁺; the class token's row, or the mean row.

    The practical variant, without layer-wise relevance propagation: rows are not renormalised. What a row keeps for its
    own token is no attention and is taken away. One forward and one backward pass.

    Source: Chefer, Gur & Wolf 2021, "Generic Attention-model Explainability", eq. 5-6; 2021, "Transformer
    Interpretability Beyond Attention Visualization", for the propagation that is left out.
    """

    def fits(self, model: AttentionModel) -> str:
        """Need self-attention over the same tokens from layer to layer."""
        return misfit(model, "relevance")

    def __call__(self, model: AttentionModel, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Follow what speaks for the answer from the last layer to the image."""
        refuse_misfit(self, model, images, targets)
        sites = chain(model)
        with asking(model), Recorder(model, sites) as recorder:
            score = answers(model(asked(images)), targets)
            rows = list(recorder.take().values())
            grads = torch.autograd.grad(score.sum(), rows, allow_unused=True)
        weighed = [weighed_rows(row, grad) for row, grad in zip(rows, grads, strict=True)]
        start = start_row(sites[0], rows[0])
        return finished(on_grid(sites[0], relevance_row(weighed, start) - start), images)


def weighed_rows(rows: Tensor, grad: Tensor | None) -> Tensor:
    """Give Ā = mean_h (∇A ⊙ A)⁺. Shapes: [B, H, N, N] twice -> [B, N, N]; no gradient, nothing."""
    if grad is None:
        return torch.zeros_like(rows[:, 0]).float()
    return (grad * rows).detach().float().clamp_min(0).mean(1)


def relevance_row(weighed: Sequence[Tensor], start: Tensor) -> Tensor:
    """Give start · (I + Ā_L) ⋯ (I + Ā_1). Shapes: layers first to last, each [B, N, N]; start [B, N] -> [B, N]."""
    row = start
    for layer in reversed(weighed):
        row = row + torch.einsum("bi,bij->bj", row, layer)
    return row
