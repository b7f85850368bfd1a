"""Did attention stay where it was? Maps of the same images before and after a change, held against each other.

Source: ours for what is put together; Jensen-Shannon divergence of Lin 1991, top cells as in `agreement`.
"""

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.explanations.alike import spearman

Doubles = NDArray[np.float64]
TOP = 0.1
"""Share of the cells whose overlap is counted."""
MEASURES = ("as_js", "as_top", "as_rho", "as_com")


def attention_stability(before: NDArray[np.floating], after: NDArray[np.floating]) -> dict[str, Doubles]:
    """Measure each image, 1 where nothing moved.

    - `as_js`: 1 − JS(a, b)/ln 2, over the map as a distribution; 0 where the two share no cell.
    - `as_top`: intersection over union of the tenth of the cells with most attention; of equal cells the first.
    - `as_rho`: Spearman's correlation of the cells, −1 to 1; 0 where one of two different maps is flat.
    - `as_com`: 1 − distance of the centres of mass over the diagonal.

    Shapes: before, after [N, H, W], not negative and not all zero -> each [N], 0 to 1 but for `as_rho`.

    Raises:
        DataError: Shapes differ, or a map is negative, empty or not finite.
    """
    if before.shape != after.shape or before.ndim != 3:
        raise DataError(f"maps have shapes {before.shape} and {after.shape}. Allowed are two of one shape [N, H, W].")
    a, b = (_distributions(np.asarray(maps, np.float64)) for maps in (before, after))
    middle = (a + b) / 2
    js = (_entropy(middle) - (_entropy(a) + _entropy(b)) / 2) / np.log(2)
    count = max(1, round(TOP * a.shape[1]))
    tops = [np.argsort(-maps, axis=1, kind="stable")[:, :count] for maps in (a, b)]
    shared = np.array([len(np.intersect1d(left, right)) for left, right in zip(*tops, strict=True)], np.float64)
    centres = [_centres(maps, before.shape[1:]) for maps in (a, b)]
    away = np.linalg.norm(centres[0] - centres[1], axis=1) / max(np.hypot(*np.array(before.shape[1:]) - 1.0), 1.0)
    return {
        "as_js": (1 - js).clip(0, 1),
        "as_top": shared / (2 * count - shared),
        "as_rho": np.where((a == b).all(axis=1), 1.0, spearman(before, after)),  # two equal flat maps have not moved
        "as_com": 1 - away,
    }


def _distributions(maps: Doubles) -> Doubles:
    flat = maps.reshape(len(maps), -1)
    total = flat.sum(axis=1, keepdims=True)
    if not np.isfinite(flat).all() or (flat < 0).any() or (total <= 0).any():
        raise DataError("a map is negative, empty or not finite, so it is no distribution. Measure it again.")
    return np.asarray(flat / total)


def _entropy(flat: Doubles) -> Doubles:
    logs = np.log(flat, out=np.zeros_like(flat), where=flat > 0)
    return np.asarray(-(flat * logs).sum(axis=1))


def _centres(flat: Doubles, size: tuple[int, ...]) -> Doubles:
    y, x = np.mgrid[: size[0], : size[1]].reshape(2, -1)
    return np.stack([flat @ y, flat @ x], axis=1)
