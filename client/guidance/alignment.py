"""Alignment: move the site's mean attention towards the federation's, one image at a time."""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.guidance.base import Known, Seen
from common.shift.projected import TAU, Whitening, basis


class Alignment:
    """First variation of F(m) = ½ ‖P_U W (m − μ)‖² / (d − rank U), half of D²⊥, at the site's last mean m = m̃.

    L(x) = ⟨∇F(m̃), s(x)⟩ with ∇F(m̃) = W P_U W (m̃ − μ) / (d − rank U), a constant. F is of the site's mean and not
    separable; L is, and its gradient averaged over the site equals that of F where the mean is m̃. μ and W come from the
    prior, U from the site's class means, so that the site's own mix of classes is not pulled away. L may be negative.

    Source: ours; the first variation is that of a functional of a mean.
    """

    needs: ClassVar[tuple[str, ...]] = ("prior", "own")

    def __init__(self, known: Known) -> None:
        assert known.prior is not None and known.own is not None  # noqa: PT018 - `needs` says so
        told = known.told().numpy()
        whiten = projection(known, told)
        self.gradient = torch.from_numpy(variation(known.own[told], known.prior.mean[told], whiten)).float()
        self.told = torch.from_numpy(np.flatnonzero(told))

    def __call__(self, seen: Seen) -> Tensor:
        """Give ⟨∇F, s⟩ per image, [B]."""
        rows = seen.rows[:, self.told.to(seen.rows.device)]
        return rows @ self.gradient.to(rows)


def projection(known: Known, told: NDArray[np.bool_]) -> Whitening:
    """Give W from the prior's variance and U from the site's class means, on the entries that are told."""
    assert known.prior is not None
    weights = 1 / np.sqrt(known.prior.variance[told] + TAU)
    classes = np.zeros((1, len(weights))) if known.classes is None else known.classes[:, told]
    return Whitening(weights, basis((classes[1:] - classes[:1]) * weights))


def variation(own: NDArray[np.float64], wanted: NDArray[np.float64], whiten: Whitening) -> NDArray[np.float64]:
    """Give ∇F at a mean. Shapes: [d] twice -> [d]. Nothing is left to pull where the classes span everything."""
    if whiten.freedom == 0:
        return np.zeros_like(own)
    return np.asarray(whiten(own - wanted) * whiten.weights / whiten.freedom)
