"""Agreement of maps with experts' masks, per image, and the maps that know no image, to be held beside."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import average_precision_score

from common.errors import AttentionError, DataError

Doubles = NDArray[np.float64]
Masks = NDArray[np.bool_]
TOLERANCE = 15 / 224
"""How far beside the mask the brightest pixel may lie, in shares of the longer side."""
MEASURES = ("pointing", "energy", "lift", "iou", "auprc")


def agreement(maps: NDArray[np.floating], masks: Masks) -> dict[str, Doubles]:
    """Measure each image; NaN where the mask is empty or covers everything, for nothing can be told there.

    - pointing: whether the brightest pixel lies in the mask or within the tolerance of it; pixels that tie share.
    - energy: share of the map inside the mask. Rewards big lesions.
    - lift: energy over the mask's share of the image; 1 is chance.
    - iou: intersection over union of the mask with as many of the brightest pixels; pixels that tie share the last
      places.
    - auprc: average precision of the pixels as a ranking; the mask's share of the image is chance.

    Shapes: maps [N, H, W], not negative, sum 1; masks [N, H, W] -> each [N].

    Source: Zhang et al. 2018, "Top-down Neural Attention by Excitation Backprop" (pointing game, 15 pixels at 224);
    Wang et al. 2020, "Score-CAM" (energy).

    Raises:
        DataError: Masks of another size.
        AttentionError: Maps that are not finite, or negative.
    """
    check_maps(maps)
    if masks.shape != maps.shape:
        raise DataError(
            f"masks have shape {masks.shape} and maps {maps.shape}. Both need the same images and size; resize masks "
            f"with their images."
        )
    found = [_measured(each.astype(np.float64), mask) for each, mask in zip(maps, masks, strict=True)]
    return {name: np.array([row[place] for row in found], np.float64) for place, name in enumerate(MEASURES)}


def check_maps(maps: NDArray[np.floating]) -> None:
    """Refuse what is no map of images.

    Raises:
        AttentionError: Not [N, H, W], not finite, or negative.
    """
    if maps.ndim != 3 or not np.isfinite(maps).all() or (maps < 0).any():
        raise AttentionError(
            f"maps of shape {maps.shape} are not finite or are negative. Allowed is [N, H, W], finite, not negative; "
            f"explain the images again."
        )


def _measured(each: Doubles, mask: Masks) -> tuple[float, ...]:
    size, total = int(mask.sum()), float(each.sum())
    if size in (0, mask.size) or total <= 0:
        return (float("nan"),) * len(MEASURES)
    brightest = each == each.max()
    near = distance_transform_edt(~mask) <= TOLERANCE * max(mask.shape)
    energy = float(each[mask].sum()) / total
    inside = _shared_top(each.ravel(), mask.ravel(), size)
    return (
        float(near[brightest].mean()),
        energy,
        energy * mask.size / size,
        inside / (2 * size - inside),
        float(average_precision_score(mask.ravel(), each.ravel())),
    )


def _shared_top(values: Doubles, mask: Masks, count: int) -> float:
    """Give how many of the `count` brightest pixels lie in the mask; those that tie for the last places share them."""
    least = np.partition(values, len(values) - count)[len(values) - count]
    above, tied = values > least, values == least
    places = count - int(above.sum())
    return float(mask[above].sum()) + places * float(mask[tied].mean())


def baseline_maps(maps: NDArray[np.floating]) -> dict[str, Doubles]:
    """Give maps that know nothing of the image they are held against: each [N, H, W], sum 1.

    - uniform: the same everywhere;
    - centre: a Gaussian in the middle, its deviation a quarter of each side;
    - mean-map: the mean of all these maps, so that only what differs from image to image can be better.
    """
    count, height, width = maps.shape
    rows, columns = (np.exp(-0.5 * ((np.arange(side) + 0.5 - side / 2) / (side / 4)) ** 2) for side in (height, width))
    centre = np.outer(rows, columns)
    mean = np.asarray(maps, np.float64).mean(0)
    found = {"uniform": np.ones((height, width)), "centre": centre, "mean-map": mean}
    return {name: np.broadcast_to(each / each.sum(), (count, height, width)) for name, each in found.items()}


def size_tertiles(masks: Masks) -> NDArray[np.int64]:
    """Sort images by the size of their mask into 0 small, 1 middle, 2 large; −1 where the mask is empty. [N]."""
    sizes = masks.reshape(len(masks), -1).sum(1)
    found = np.full(len(masks), -1, np.int64)
    filled = sizes > 0
    if filled.any():
        found[filled] = np.searchsorted(np.quantile(sizes[filled], (1 / 3, 2 / 3)), sizes[filled], side="left")
    return found
