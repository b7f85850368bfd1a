"""Temperature scaling that a federation can do: sites add up two numbers, and no prediction leaves.

Logits are divided by one T for all, chosen so that the negative log likelihood of the source sites' validation images
is least. In β = 1/T it is convex: its slope is Σ (E_p[z] − z_y), its curvature Σ Var_p[z], both sums over images, hence
over sites. Some Newton steps of two numbers per site find β.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2; the sums are ours.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from common.metrics.base import Classified

Floats = NDArray[np.float64]
LEAST, MOST = 0.05, 20.0
"""Bounds of β: of a model that is always right the best β is infinite."""
STEPS = 50
FLOOR = 1e-12


def temperature(sites: Sequence[Classified]) -> float:
    """Find T from the sites' validation predictions; 1 where there are no images.

    Each step uses the sums of `slope` over sites alone, as a server would.
    """
    if not sum(map(len, sites)):
        return 1.0
    beta, low, high = 1.0, LEAST, MOST
    for _ in range(STEPS):
        slope, curvature = np.sum([slopes(site, beta) for site in sites], axis=0)
        low, high = (beta, high) if slope < 0 else (low, beta)
        newton = beta - slope / curvature if curvature > 0 else np.inf
        after = newton if low < newton < high else (low * high) ** 0.5
        if abs(after - beta) < 1e-9 * beta:
            break
        beta = after
    return float(1 / beta)


def slopes(predictions: Classified, beta: float) -> Floats:
    """Give a site's sums (slope, curvature) of the negative log likelihood at β, [2]."""
    logits, truth = _logits(predictions)
    probabilities = softmax(beta * logits, axis=1)
    mean = (probabilities * logits).sum(axis=1)
    variance = (probabilities * np.square(logits - mean[:, None])).sum(axis=1)
    return np.array([(mean - logits[np.arange(len(truth)), truth]).sum(), variance.sum()])


def scaled(predictions: Classified, temperature: float) -> Classified:
    """Divide the logits by T; the order of scores, and so the AUROC of two classes, stays as it is."""
    shape = predictions.probabilities.shape
    logits, _ = _logits(predictions)
    found = softmax(logits / temperature, axis=1)
    exclusive = predictions.labels.ndim == 1 and shape[1] > 1
    return replace(predictions, probabilities=found if exclusive else found[:, 1].reshape(shape))


def _logits(predictions: Classified) -> tuple[Floats, NDArray[np.int64]]:
    """Give logits [R, K] and true columns [R]: one row per image, or per image and label where labels are several."""
    p = np.clip(predictions.probabilities, FLOOR, 1.0)
    if predictions.labels.ndim == 1 and p.shape[1] > 1:
        return np.log(p), predictions.labels.astype(np.int64)
    flat = np.clip(p, FLOOR, 1 - FLOOR).ravel()
    return np.log(np.column_stack([1 - flat, flat])), predictions.labels.ravel().astype(np.int64)
