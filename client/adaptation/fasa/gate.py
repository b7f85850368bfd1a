"""The gate: how far a window of images lies from the source sites, in directions that no label mix explains."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.shift.class_law import ClassLaw
from common.shift.nulls import Thresholds
from common.shift.projected import Whitening

WINDOW = 64
"""Images in a window: of the null and of every stream that is held against it."""


@dataclass(frozen=True, slots=True)
class Null:
    """What windows of so many images read where nothing is new: see `common.shift.nulls.Thresholds`."""

    thresholds: Thresholds
    window: int = WINDOW


@dataclass(frozen=True, slots=True, eq=False)
class Ruler:
    """‖P_U W (m − μ̄)‖² / (d − rank U) of a mean m, in NumPy and with gradients. Shapes: reference [d]."""

    whiten: Whitening
    reference: NDArray[np.float64]

    @classmethod
    def of(cls, law: ClassLaw, prior: NDArray[np.float64], projected: bool = True) -> "Ruler":
        """Learn it from the law of classes; the prior makes no difference where labels are projected out."""
        return cls(law.whitening(projected), law.mean(prior))

    def distance(self, rows: NDArray[np.float64]) -> float:
        """Measure a window. Shapes: rows [W, d]."""
        away = self.whiten(np.asarray(rows, np.float64).mean(0) - self.reference)
        return float((away**2).sum() / self.whiten.freedom)

    def loss(self, mean: Tensor) -> Tensor:
        """Measure a mean, differentiably. Shapes: [d] -> []."""
        weights = torch.from_numpy(self.whiten.weights).to(mean)
        spanned = torch.from_numpy(self.whiten.directions).to(mean)
        away = (mean - torch.from_numpy(self.reference).to(mean)) * weights
        return (away - spanned @ (spanned.T @ away)).square().sum() / self.whiten.freedom
