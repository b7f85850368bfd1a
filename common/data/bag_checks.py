"""What bags of instances must be."""

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError


def check_bags(name: str, bags: NDArray[np.generic]) -> None:
    """Refuse bags that are not laid out as `common/items.py` tells, or hold what is not finite.

    Raises:
        DataError: As said.
    """
    if bags.ndim != 4 or bags.shape[1] < 2 or bags.shape[3] != 1 or bags.dtype != np.float32 or not bags.size:
        raise DataError(
            f"{name}: bags are {bags.dtype} of shape {bags.shape}. Allowed is float32 [N, 1 + F, T, 1] with one bag, "
            f"one feature and one instance at least."
        )
    marks = bags[:, 0, :, 0]
    if not np.isin(marks, (0, 1)).all() or not marks.any(axis=1).all():
        raise DataError(
            f"{name}: the marks of {int((~(np.isin(marks, (0, 1)).all(1) & marks.any(1))).sum())} bags are not 0 and 1 "
            f"with a 1 among them. The first channel says which instances are real; every bag needs one."
        )
    bad = sum(not np.isfinite(bag).all() for bag in bags)
    if bad:
        raise DataError(f"{name}: {bad} bags hold NaN or infinite features. Extract these anew or leave them out.")
    if any(bag[:, bag[0] == 0].any() for bag in bags):
        raise DataError(f"{name}: bags are filled up with something. Allowed is zero; write them anew.")
