"""Which class each image of a site counts in when the health of the attention is summed."""

import numpy as np
from numpy.typing import NDArray

from common.data.base import Dataset


def groups(data: Dataset, classes: int) -> tuple[NDArray[np.int64], int]:
    """Give the class of each image and how many classes there are.

    One class per image: that class. Masks without labels: whether there is any foreground. Several findings per image:
    all images are of one class, for they overlap.

    Args:
        data: Prepared for the task.
        classes: How many classes the data set has.

    Shapes: -> int64 [N].
    """
    if data.labels is not None and data.labels.ndim == 1:
        return np.array(data.labels, np.int64), max(2, classes)
    if data.masks is not None and data.labels is None:
        return np.array(data.masks.reshape(len(data), -1).any(1), np.int64), 2
    return np.zeros(len(data), np.int64), 1
