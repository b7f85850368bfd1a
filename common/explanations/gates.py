"""Gate maps: what the model's gates let through, mean over all of them."""

import torch
from torch import Tensor

from common.attention.base import AttentionModel, AttentionSite
from common.attention.checks import GATES
from common.attention.maps import attention_maps, has_place
from common.explanations.base import finished, heeding, refuse_misfit


class Gates:
    """Mean over the gates that have a place, each with a sum of one (`common.attention.maps`).

    Knows no class. A channel gate shows where the channels are active that it lets through. One forward pass.
    """

    def fits(self, model: AttentionModel) -> str:
        """Need a gate that can be shown on an image."""
        if not _placed(model):
            return (
                f"{type(model).__name__} has no gate that can be shown on an image. Explanation 'gates' reads "
                f"{', '.join(GATES)}; use 'raw' or 'grad-cam', or another `model.attention`."
            )
        return ""

    def __call__(self, model: AttentionModel, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Draw the mean of the gates; `targets` change nothing."""
        refuse_misfit(self, model, images, targets)
        with torch.no_grad(), heeding(model, targets):
            maps = attention_maps(model, images)
        return finished(torch.stack([maps[site.name] for site in _placed(model)]).mean(0), images)


def _placed(model: AttentionModel) -> list[AttentionSite]:
    return [site for site in model.attention_sites if site.kind in GATES and has_place(site)]
