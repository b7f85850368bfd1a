"""Corruption error: a model's error under corruption as a share of a reference model's, and what cannot be divided by.

Source: Hendrycks and Dietterich 2019, section 4 (CE, mCE, relative mCE); of balanced error, Di Salvo et al. 2024.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError

Doubles = NDArray[np.float64]
LEAST = 0.02
"""Least error of the reference, summed over severities, that is divided by: below it the ratio is chance."""


@dataclass(frozen=True, slots=True, eq=False)
class CorruptionErrors:
    """`each` [C, R]: one ratio per corruption, 1 where the model is as bad as the reference; NaN where `excluded` [C].

    The first of R columns is the images as they are, the others resamples of patients. Which are excluded follows from
    the first column, so that every column averages over the same corruptions; NaN too where a resample divides by
    nothing.
    """

    each: Doubles
    excluded: NDArray[np.bool_]

    @property
    def mean(self) -> Doubles:
        """Mean over the corruptions that are not excluded, [R]; NaN where none is left."""
        kept = self.each[~self.excluded]
        return np.asarray(kept.mean(axis=0)) if len(kept) else np.full(self.each.shape[1], np.nan)


def corruption_errors(model: Doubles, reference: Doubles) -> CorruptionErrors:
    """Divide: CE_c = Σ_s e_cs / Σ_s e^ref_cs over severities s.

    For relative CE hand in what the error grew by, e_cs − e_clean, of both. Where Σ_s of the reference is below 0.02
    the corruption is excluded: it hardly harms the reference, or even helps it, and the ratio says nothing.

    Shapes: model, reference [C, severities, R] -> `CorruptionErrors`.

    Raises:
        DataError: Other shapes.
    """
    if model.shape != reference.shape or model.ndim != 3:
        raise DataError(
            f"errors have shapes {model.shape} and {reference.shape}. Allowed are two of one shape [corruptions, "
            f"severities, resamples]; judge both models on the same corrupted images."
        )
    ours, theirs = model.sum(axis=1), reference.sum(axis=1)
    excluded = ~(theirs[:, 0] >= LEAST)
    allowed = (theirs > 0) & ~excluded[:, None]
    each = np.divide(ours, theirs, out=np.full(ours.shape, np.nan), where=allowed)
    return CorruptionErrors(each, excluded)
