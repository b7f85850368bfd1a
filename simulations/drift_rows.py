"""Signatures of a site's patients, clean and under every corruption: what an atlas is learnt from and judged by."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.evaluation import BATCH
from client.health import groups
from common.attention.base import AttentionModel
from common.attention.choice import choose_images
from common.attention.schema import Schema
from common.attention.signature import signatures
from common.data.base import Dataset
from common.shift.drift_atlas import Clean
from simulations.corruptions.corrupt import SEVERITIES, corrupt

Rows = NDArray[np.float64]
IMAGES_PER_PATIENT, PATIENTS = 4, 64
"""So many of each site: a mean over patients needs no more."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Some patients' images of one site. Shapes: images uint8 [N, C, H, W]."""

    data: Dataset
    images: NDArray[np.uint8]


def choose(data: Dataset, seed: int) -> Chosen:
    """Draw the patients and images that are measured."""
    some = data.subset(choose_images(data.patients, IMAGES_PER_PATIENT, PATIENTS, seed))
    whole = np.rint(some.images * (1 if some.images.dtype == np.uint8 else 255)).astype(np.uint8)
    return Chosen(some, whole)


def patient_rows(model: AttentionModel, schema: Schema, chosen: Chosen, images: NDArray[np.uint8]) -> Rows:
    """Measure images that stand for the chosen ones: the mean signature of each patient, [P, d]."""
    return _means(_measured(model, schema, chosen, images), chosen.data.patients)


def corrupted_rows(
    model: AttentionModel, schema: Schema, chosen: Chosen, names: list[str], seed: int
) -> Iterator[tuple[str, int, Rows]]:
    """Give the patients' rows under every corruption in every severity."""
    for name in names:
        for severity in SEVERITIES:
            images = corrupt(chosen.images, name, severity, seed)
            yield name, severity, patient_rows(model, schema, chosen, images)


def clean_rows(model: AttentionModel, schema: Schema, chosen: Chosen) -> Clean:
    """Measure clean patients; one with images of several classes counts once in each of them too."""
    each = _measured(model, schema, chosen, chosen.images)
    patients = np.unique(chosen.data.patients, return_inverse=True)[1]
    classes = groups(chosen.data, len(chosen.data.classes))[0]
    pairs, index = np.unique(np.stack([patients, classes], 1), axis=0, return_inverse=True)
    return Clean(_means(each, chosen.data.patients), _means(each, index.ravel()), np.asarray(pairs[:, 1], np.int64))


def _measured(model: AttentionModel, schema: Schema, chosen: Chosen, images: NDArray[np.uint8]) -> Rows:
    device = next(model.parameters()).device
    now = replace(chosen.data, images=images)
    found = [
        signatures(model, now.batch(np.arange(start, min(start + BATCH, len(now))), device).images, schema)
        for start in range(0, len(now), BATCH)
    ]
    return np.concatenate([each.double().cpu().numpy() for each in found])


def _means(rows: Rows, keys: NDArray[np.str_] | NDArray[np.int64]) -> Rows:
    names, index = np.unique(keys, return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, index, rows)
    return np.asarray(sums / np.bincount(index)[:, None])
