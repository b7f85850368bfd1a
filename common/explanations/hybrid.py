"""Hybrid: where the model attends and where its features speak for the answer, both at once."""

from torch import Tensor

from common.attention.base import AttentionModel
from common.errors import AttentionError
from common.explanations.base import Explanation, finished, refuse_misfit
from common.explanations.gates import Gates
from common.explanations.grad_cam import weighed_features
from common.explanations.raw import Raw
from common.explanations.relevance import Relevance

SHARE = 0.5
"""Exponent of Grad-CAM in the geometric mean; the rest is attention's."""


class Hybrid:
    """H ∝ G^½ R^½ on the image's grid: G Grad-CAM, R relevance, else gates, else raw attention.

    Where one of them is empty for an image, the other stands alone. Both remain to be looked at for themselves.

    Source: ours, for attention combined with Grad-CAM; a geometric mean is high only where both are.
    """

    def fits(self, model: AttentionModel) -> str:
        """Need attention that can be shown on an image."""
        if _attention(model) is None:
            return (
                f"{type(model).__name__} has no attention that can be shown on an image. Explanation 'hybrid' combines "
                f"it with Grad-CAM; use 'grad-cam' alone, or another `model.attention`."
            )
        return ""

    def __call__(self, model: AttentionModel, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Combine both."""
        refuse_misfit(self, model, images, targets)
        attention = _attention(model)
        if attention is None:
            raise AttentionError(self.fits(model))
        grown = weighed_features(model, images, targets)
        attended, grad_cam = attention(model, images, targets), finished(grown, images)
        both = combined(grad_cam, attended)
        return finished(both.where(grown.amax((1, 2), keepdim=True) > 0, attended), images)


def combined(grad_cam: Tensor, attended: Tensor) -> Tensor:
    """Give the geometric mean; where attention is the same everywhere, Grad-CAM alone. Shapes: [B, H, W] each."""
    flat = attended.amax((1, 2), keepdim=True) == attended.amin((1, 2), keepdim=True)
    return grad_cam.where(flat, grad_cam**SHARE * attended ** (1 - SHARE))


def _attention(model: AttentionModel) -> Explanation | None:
    parts: tuple[Explanation, ...] = (Relevance(), Gates(), Raw())
    return next((part for part in parts if not part.fits(model)), None)
