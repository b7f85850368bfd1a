"""The nearest probability vector to any vector."""

import numpy as np
from numpy.typing import NDArray


def project(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project onto the simplex: not negative, sum 1, least Euclidean distance.

    Noise and rounding push a histogram off the simplex; clipping and renormalising would pull it towards uniform.

    Shapes: [n] -> [n].
    Source: Duchi et al. 2008, "Efficient Projections onto the l1-Ball for Learning in High Dimensions", figure 1.
    """
    ordered = np.sort(vector)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(vector) + 1)
    kept = np.flatnonzero(ordered > excess)[-1]
    nearest: NDArray[np.float64] = np.maximum(vector - excess[kept], 0)
    return nearest
