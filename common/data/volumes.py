"""Volumes of an archive as their slices: every slice becomes an image of the volume's patient."""

import numpy as np

from common.data.choose import PATIENT_COLUMNS
from common.data.npz import Arrays


def sliced(arrays: Arrays) -> Arrays:
    """Turn volumes [N, D, H, W] into slices [N · D, H, W], first axis first; whatever has one row per volume follows.

    Masks with a value per voxel are sliced too; a label, centre or patient of a volume is that of all its slices. Where
    no column names the patient, every volume is one: two slices of a volume never stand in two splits. Other images
    stay as they are.
    """
    images = arrays.get("images")
    if images is None or images.ndim != 4 or images.shape[-1] in (1, 3):
        return arrays
    volumes, depth = images.shape[:2]
    found = {
        name: values.reshape(-1, *values.shape[2:])
        if values.ndim >= 4 and values.shape[:2] == (volumes, depth)
        else (np.repeat(values, depth, axis=0) if values.ndim and len(values) == volumes else values)
        for name, values in arrays.items()
    }
    if not any(name in found for name in PATIENT_COLUMNS):
        found["patient"] = np.repeat(np.arange(volumes), depth)
    return found
