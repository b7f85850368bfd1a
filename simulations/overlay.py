"""An overlay: one test image, where the lesion is, and where the model looked. Many of them make one `.npz`."""

import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError

WORDS = ("site", "role", "caption", "label", "probability", "attention_site")
ARRAYS = ("image", "mask", "attention", "prediction")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlay:
    """One picture for the report; it never names a patient.

    `role` is source or held-out; `label` the true class; `probability` the model's probability of the positive (or the
    true) class, NaN for segmentation; `attention_site` the attention site that the map comes from.

    Shapes: image uint8 [H, W] or [H, W, 3]; mask and prediction uint8 [H, W] (0 is background) or None; attention
    float32 [H, W], not negative, sum 1.

    Raises:
        DataError: A shape, dtype or value is another.
    """

    site: str
    role: str
    caption: str
    label: str
    probability: float
    attention_site: str
    image: NDArray[np.uint8]
    attention: NDArray[np.float32]
    mask: NDArray[np.uint8] | None = None
    prediction: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        image, attention = self.image, self.attention
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise DataError(
                f"overlay of {self.site}: image is {image.dtype} {image.shape}. Allowed is uint8 [H, W] or [H, W, 3]."
            )
        for name, array in (("mask", self.mask), ("prediction", self.prediction)):
            if array is not None and (array.dtype != np.uint8 or array.shape != image.shape[:2]):
                raise DataError(
                    f"overlay of {self.site}: {name} is {array.dtype} {array.shape}. Allowed is uint8 "
                    f"{image.shape[:2]}, the image's size."
                )
        if attention.dtype != np.float32 or attention.shape != image.shape[:2]:
            raise DataError(
                f"overlay of {self.site}: attention is {attention.dtype} {attention.shape}. Allowed is float32 "
                f"{image.shape[:2]}, the image's size; upsample the map."
            )
        total = float(attention.sum(dtype=np.float64))
        if not np.isfinite(total) or attention.min() < 0 or abs(total - 1) > 1e-3:
            raise DataError(
                f"overlay of {self.site}: attention sums to {total:.6g} with least value {attention.min():.3g}. "
                f"Allowed is a map that is not negative and sums to 1; divide it by its sum."
            )

    def in_mask(self) -> tuple[float, float]:
        """Give the share of attention inside the mask and its ratio to the mask's share of the image (lift).

        Both are NaN where there is no mask or it is empty. Energy alone rewards big lesions; lift 1 is chance.
        Source: energy-in-mask over relative area, research notes §8a.
        """
        if self.mask is None or not self.mask.any():
            return float("nan"), float("nan")
        inside = self.mask > 0
        energy = float(self.attention[inside].sum(dtype=np.float64))
        return energy, energy / float(inside.mean())


def write_overlays(overlays: list[Overlay], file: BinaryIO) -> None:
    """Write overlays to an open `.npz`: raw arrays, words as JSON, no pickle."""
    words = [{word: getattr(overlay, word) for word in WORDS} for overlay in overlays]
    for word in words:
        word["probability"] = None if np.isnan(word["probability"]) else float(word["probability"])
    arrays: dict[str, Any] = {"words": np.frombuffer(json.dumps(words).encode(), dtype=np.uint8)}
    for index, overlay in enumerate(overlays):
        for name in ARRAYS:
            array = getattr(overlay, name)
            if array is not None:
                arrays[f"{name}-{index}"] = array
    np.savez_compressed(file, **arrays)


def read_overlays(file: BinaryIO) -> list[Overlay]:
    """Read what `write_overlays` wrote.

    Raises:
        DataError, OSError, ValueError, KeyError: The file is damaged.
    """
    with np.load(file, allow_pickle=False) as stored:
        words = json.loads(stored["words"].tobytes())
        overlays = []
        for index, word in enumerate(words):
            word["probability"] = float("nan") if word["probability"] is None else word["probability"]
            arrays = {name: stored[f"{name}-{index}"] for name in ARRAYS if f"{name}-{index}" in stored}
            overlays.append(Overlay(**word, **arrays))
    return overlays
