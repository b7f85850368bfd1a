"""Raw attention: where the last layer that looks from place to place looks."""

import torch
from torch import Tensor

from common.attention.base import AttentionModel, AttentionSite
from common.attention.maps import attention_maps, has_place
from common.explanations.base import finished, heeding, refuse_misfit

LOOKING = ("self-attention", "window", "axial", "cross-attention", "neighbourhood")


class Raw:
    """The class token's row over the patches in the last layer, mean of heads; without one, attention received.

    Knows no class: it shows where the model looks, not what speaks for its answer. One forward pass.
    """

    def fits(self, model: AttentionModel) -> str:
        """Need a layer of softmax attention over places."""
        if _last(model) is None:
            return (
                f"{type(model).__name__} has no layer whose attention falls on places. Explanation 'raw' reads "
                f"{', '.join(LOOKING)}; use 'gates' or 'grad-cam', or another `model.attention`."
            )
        return ""

    def __call__(self, model: AttentionModel, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Draw the last layer's attention; `targets` change nothing."""
        refuse_misfit(self, model, images, targets)
        site = _last(model)
        assert site is not None
        with torch.no_grad(), heeding(model, targets):
            return finished(attention_maps(model, images)[site.name], images)


def _last(model: AttentionModel) -> AttentionSite | None:
    placed = [site for site in model.attention_sites if site.kind in LOOKING and has_place(site)]
    return placed[-1] if placed else None
