"""What an attacker learns on patients of his own: from what is released to where the lesion is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Floats = NDArray[np.float64]
CELLS = 16
"""The lesion is sought on a grid of so many cells along each side."""
MAP_SIDE = 14
PENALTIES = 10.0 ** np.arange(-6, 5)
"""Of ridge regression, relative to the mean variance of the standardised features."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoder:
    """A linear map with an intercept. Shapes: centre [d], slopes [d, k], intercept [k]."""

    centre: Floats
    slopes: Floats
    intercept: Floats

    def __call__(self, features: Floats) -> Floats:
        """Predict. [N, d] -> [N, k]."""
        return np.asarray((features - self.centre) @ self.slopes + self.intercept)


def ridge(features: Floats, answers: Floats) -> Decoder:
    """Fit ridge regression; the penalty is the one of PENALTIES with the least leave-one-out error.

    With X = U S Vᵀ centred and standardised, the fit leaves out row i by dividing its residual by 1 − h_i,
    h_i = 1/n + Σ_j U²_ij s²_j / (s²_j + λ).

    Shapes: features [N, d], answers [N, k]. Source: Golub, Heath, Wahba 1979, for the leave-one-out identity.
    """
    centre, middle = features.mean(axis=0), answers.mean(axis=0)
    scale = np.maximum(features.std(axis=0), 1e-12)
    u, s, vt = np.linalg.svd((features - centre) / scale, full_matrices=False)
    away = answers - middle
    errors, fits = [], []
    for penalty in PENALTIES * len(features):
        shrunk = s**2 / (s**2 + penalty)
        leverage = 1 / len(features) + u**2 @ shrunk
        residual = away - (u * shrunk) @ (u.T @ away)
        errors.append(float(((residual / np.maximum(1 - leverage, 1e-9)[:, None]) ** 2).sum()))
        fits.append((vt.T * (s / (s**2 + penalty))) @ (u.T @ away) / scale[:, None])
    return Decoder(centre, fits[int(np.argmin(errors))], middle)


def learnt(features: Floats, heats: Floats, sites: int) -> Callable[[Floats], Floats]:
    """Learn from features to the heat of each cell.

    One ridge regression from all features to all cells. Where the features are maps, a second one, the same for every
    cell, from the 3 x 3 neighbourhood of the cell in each map to how much hotter the cell is than on average; both are
    added. The first knows where lesions usually are, the second that a lesion looks alike wherever it is.

    Shapes: features [N, d], heats [N, CELLS²] -> a function from [M, d] to [M, CELLS²].
    """
    everywhere = ridge(features, heats)
    if sites == 0:
        return everywhere
    hotter = heats - heats.mean(axis=0)
    around = neighbourhoods(features, sites)
    alike = ridge(around.reshape(-1, around.shape[2]), hotter.reshape(-1, 1))

    def decode(given: Floats) -> Floats:
        rows = neighbourhoods(given, sites)
        return everywhere(given) + alike(rows.reshape(-1, rows.shape[2])).reshape(len(given), -1)

    return decode


def neighbourhoods(features: Floats, sites: int) -> Floats:
    """Give each cell's 3 x 3 neighbourhood in each map, every map standardised.

    Shapes: [N, sites · 196] -> [N, CELLS², 9 · sites].
    """
    maps = torch.from_numpy(features).reshape(len(features), sites, MAP_SIDE, MAP_SIDE)
    spread, mean = torch.std_mean(maps, dim=(2, 3), keepdim=True)
    alike = F.interpolate((maps - mean) / spread.clamp_min(1e-12), size=(CELLS, CELLS), mode="bilinear")
    return np.asarray(F.unfold(F.pad(alike, (1, 1, 1, 1), mode="replicate"), 3).transpose(1, 2).numpy())


def heat(masks: NDArray[np.bool_]) -> Floats:
    """Give the share of each image's lesion in each cell. bool [N, H, W] -> [N, CELLS²], rows of sum 1."""
    shares = F.adaptive_avg_pool2d(torch.from_numpy(masks).double()[:, None], CELLS).flatten(1).numpy()
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
