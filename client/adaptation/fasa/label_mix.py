"""The label mix of unlabelled images, from what a confused model answers on average."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Vectors = NDArray[np.float64]
LEAST = 0.02
HEAVY = 1e4
"""Weight of Σ π = 1 against the fit: the simplex is kept to 1e-8 and renormalised."""


def label_mix(confusion: Vectors, answers: Vectors) -> Vectors:
    """Give argmin over the simplex of ‖Cᵀπ − mean p‖², each entry then kept in [.02, .98] and the sum 1.

    Right where only prevalence moved; unreliable under a strong shift of images, where C is no longer the model's.
    Solved exactly, by an active set (Lawson and Hanson 1974, chapter 23).

    Args:
        confusion: C, mean answers (columns) by true class (row).
        answers: Mean answers of the images.

    Shapes: confusion [K, K], answers [K] -> [K].
    Source: Lipton et al. 2018, "Detecting and Correcting for Label Shift with Black Box Predictors", with soft answers.
    """
    classes = len(answers)
    equations = np.vstack([confusion.T, np.full((1, classes), HEAVY)])
    found, _ = nnls(equations, np.append(answers, HEAVY))
    return kept(found / found.sum())


def kept(mix: Vectors) -> Vectors:
    """Keep every class at .02 or more, of the others' excess in proportion. Shapes: [K], sum 1 -> the same."""
    least = min(LEAST, 1 / len(mix))
    excess = np.maximum(mix - least, 0)
    total = excess.sum()
    spare = 1 - least * len(mix)
    return np.asarray(least + (excess * (spare / total) if total > 0 else spare / len(mix)))
