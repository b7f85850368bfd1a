"""How alike two maps of one image are."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def spearman(left: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give Spearman's rank correlation over the pixels of each image; 0 where one of the maps is flat.

    Shapes: [N, H, W] twice -> [N].
    """
    sides = [rankdata(side.reshape(len(side), -1), axis=1) for side in (left, right)]
    centred = [side - side.mean(1, keepdims=True) for side in sides]
    norms = [np.sqrt((side**2).sum(1)) for side in centred]
    product, scale = (centred[0] * centred[1]).sum(1), norms[0] * norms[1]
    return np.asarray(np.divide(product, scale, out=np.zeros(len(product)), where=scale > 0))
