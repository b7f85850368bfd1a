"""What an adapted model is judged by, twice: while the stream came, and afterwards on patients who were not in it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.metrics import METRICS
from common.metrics.base import Classified
from common.metrics.bootstrap import resample_weights
from common.seeds import derive

Floats = NDArray[np.float64]
Resampled = dict[str, NDArray[np.float32]]
SCORES = {
    "auroc": "auroc",
    "balanced_accuracy": "balanced-accuracy",
    "balanced_accuracy_source": "balanced-accuracy",
    "ece": "ece",
    "brier": "brier",
}
"""Column to the metric in METRICS. `balanced_accuracy` is at the frozen threshold 0.5 (several classes: the likeliest
one), `balanced_accuracy_source` at the threshold that was best on the source sites' validation images; binary only."""
LOWER_IS_BETTER = ("ece", "brier")
ONLINE, AFTERWARDS = "online", "post"
PHASES = (ONLINE, AFTERWARDS)
RESAMPLED = ("online_auroc", "online_balanced_accuracy", "post_auroc", "post_balanced_accuracy", "post_ece")
"""Scores that are kept for every resample of patients, so that differences have an interval."""


def columns() -> list[str]:
    """Name every score of both phases, as in `post_auroc`."""
    return [f"{phase}_{name}" for phase in PHASES for name in SCORES]


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Judges predictions on one stream: patients are drawn alike for every method.

    Args:
        threshold: Of the source's validation images; NaN where there is none.
        resamples: Draws of patients.
        seed: Of the draws, with the site's name.
    """

    threshold: float
    resamples: int
    seed: int

    def scores(self, phase: str, predictions: Classified) -> dict[str, float]:
        """Give every score of a phase; NaN where it is undefined (one class only)."""
        return {f"{phase}_{name}": float(self._value(name, predictions)[0]) for name in SCORES}

    def resampled(self, phase: str, predictions: Classified, sites: NDArray[np.str_]) -> Resampled:
        """Give the scores of RESAMPLED on every draw of patients, each site's on their own; NaN where undefined.

        Shapes: sites [N] -> each float32 [resamples].
        """
        weights = np.zeros((self.resamples, len(predictions)))
        for site in np.unique(sites):
            own = sites == site
            seed = derive(self.seed, "bootstrap", str(site))
            weights[:, own] = resample_weights(predictions.patients[own], self.resamples, seed)
        return {
            column: np.asarray(self._value(column.removeprefix(f"{phase}_"), predictions, weights), np.float32)
            for column in RESAMPLED
            if column.startswith(phase)
        }

    def _value(self, name: str, predictions: Classified, weights: Floats | None = None) -> Floats:
        if name == "balanced_accuracy_source":
            if np.isnan(self.threshold):
                return np.full(1 if weights is None else len(weights), np.nan)
            sides = (predictions.probabilities >= self.threshold).astype(np.float64)
            predictions = replace(predictions, probabilities=sides)
        found: Floats = METRICS.load(SCORES[name])().value(predictions, weights)
        return found


def source_threshold(predictions: Classified) -> float:
    """Give the threshold with the highest balanced accuracy; of equal ones that nearest to 0.5. NaN if not binary.

    Candidates lie halfway between neighbouring probabilities, beyond them all, and at 0.5.
    """
    if predictions.probabilities.shape[1] != 1 or predictions.labels.ndim != 1:
        return float("nan")
    positive = predictions.labels > 0
    if positive.all() or not positive.any():
        return float("nan")
    known = np.unique(predictions.probabilities[:, 0])
    ends = [known[0], np.nextafter(known[-1], 2)]
    candidates = np.concatenate([[0.5], ends, (known[1:] + known[:-1]) / 2])
    ill, well = (np.sort(predictions.probabilities[side, 0]) for side in (positive, ~positive))
    sensitivity = 1 - np.searchsorted(ill, candidates) / len(ill)
    specificity = np.searchsorted(well, candidates) / len(well)
    best = (sensitivity + specificity).round(12)
    return float(min(candidates[best == best.max()], key=lambda each: abs(each - 0.5)))
