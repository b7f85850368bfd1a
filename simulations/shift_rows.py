"""What a shift is measured on and with: one row per patient of a site, and a ruler learnt on the source sites."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.evaluation import BATCH
from client.health import groups
from common.attention.base import AttentionModel
from common.attention.choice import choose_images
from common.attention.distance import add_w
from common.attention.projection import LONGEST
from common.attention.schema import Schema, schema_of
from common.attention.signature import measuring, signatures
from common.config import load_run_config
from common.data.base import Dataset
from common.data.federation import Federation
from common.data.phantom import SMALLEST_SIDE, phantom
from common.errors import AttentionError
from common.items import are_bags, noise
from common.seeds import torch_generator
from common.shift.embedding import Embedding, add_m, embedding, median_distance
from common.shift.floor import floor
from common.shift.frechet import add_f, frechet
from common.shift.moments import Moments, moments
from common.shift.projected import Whitening, d2, whitening

DISTANCES = {
    "add_w": "ADD-W",
    "add_m": "ADD-M",
    "add_f": "ADD-F",
    "d2_projected": "D²⊥",
    "d2_marginal": "D² marginal",
    "feature_frechet": "feature Fréchet",
}
"""Column to the name that people read."""
IMAGES_PER_PATIENT, PATIENTS = 32, 512
EVERY = 10_000
"""More blocks than any model has."""
PUBLIC = 4
"""Patients of each generated hospital whose signatures give ADD-M its bandwidth: public, they tell of no patient."""

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SiteRows:
    """One row per patient of a site's test images; `cells` has one per patient and class that he has images of.

    The classes' means are taken over cells: a patient's images may be of several classes, and how many are of which is
    prevalence too.

    Shapes: signatures [P, d], features [P, f], cells [Q, d], labels [Q], Q ≥ P.
    """

    signatures: Rows
    features: Rows
    cells: Rows
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Ruler:
    """Everything that two sites' rows are compared with; learnt on the source sites."""

    schema: Schema
    embed: Embedding
    pooled: Moments
    projected: Whitening
    marginal: Whitening

    def distances(self, left: SiteRows, right: SiteRows) -> dict[str, float]:
        """Give DISTANCES of two sites, and `add_w_floor`."""
        sides = moments(left.signatures), moments(right.signatures)

        def distance(a: Rows, b: Rows) -> float:
            return add_w(self.schema, a, b)

        return {
            "add_w": distance(sides[0].mean, sides[1].mean),
            "add_w_floor": floor(self.pooled, *sides, distance, 0),
            "add_m": add_m(left.signatures, right.signatures, self.embed),
            "add_f": add_f(*sides),
            "d2_projected": d2(left.signatures, right.signatures, self.projected),
            "d2_marginal": d2(left.signatures, right.signatures, self.marginal),
            "feature_frechet": frechet(left.features, right.features),
        }


def ruler_of(model: AttentionModel, schema: Schema, federation: Federation, sources: Sequence[SiteRows]) -> Ruler:
    """Learn the whitening on the sources' rows and the bandwidth on generated images."""
    cells, labels = (
        np.concatenate(part) for part in zip(*((site.cells, site.labels) for site in sources), strict=True)
    )
    return Ruler(
        schema,
        embedding(schema.length, _bandwidth(model, schema, federation), 0),
        moments(np.concatenate([site.signatures for site in sources])),
        whitening(cells, labels),
        whitening(cells, labels, projected=False),
    )


def schema_for(model: AttentionModel) -> Schema:
    """Give the schema of a model of a run.

    Raises:
        AttentionError: It names no attention site, or its signature is projected and so has no blocks to compare.
    """
    if not model.attention_sites:
        raise AttentionError(
            "the run's model names no attention site. A shift of attention needs one; train with model.attention, "
            "such as se or self-attention."
        )
    schema = schema_of(model)
    if schema.projected:
        raise AttentionError(
            f"the run's signature has {schema.entries} entries and is projected. A study of shift compares block by "
            f"block, which {LONGEST} entries or fewer allow; train a model of fewer heads or branches."
        )
    return schema


def detailed_schema(model: AttentionModel) -> Schema:
    """Give the schema of as many layers and blocks as still have names: what moved may lie outside the signature."""
    for depths in range(len(model.attention_sites), 1, -1):
        schema = schema_of(model, depths, cap=EVERY)
        if not schema.projected:
            return schema
    return schema_for(model)


def site_rows(model: AttentionModel, schema: Schema, data: Dataset, seed: int) -> SiteRows:
    """Measure a site's patients: mean signature and mean features of each patient's images.

    Features are what the model offers before its head, averaged over places.
    """
    device = next(model.parameters()).device
    chosen = np.asarray(choose_images(data.patients, IMAGES_PER_PATIENT, PATIENTS, seed))
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(chosen), BATCH):
        images = data.batch(chosen[start : start + BATCH], device).images
        parts.append((signatures(model, images, schema), _features(model, images)))
    index = np.unique(data.patients[chosen], return_inverse=True)[1]
    vectors = [torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True)]
    classes = groups(data, len(data.classes))[0][chosen]
    pairs, cells = np.unique(np.stack([index, classes], 1), axis=0, return_inverse=True)
    measured, features = vectors
    return SiteRows(
        _means(measured, index), _means(features, index), _means(measured, cells.ravel()), np.asarray(pairs[:, 1])
    )


def _means(rows: Rows, index: NDArray[np.int64]) -> Rows:
    sums = np.zeros((index.max() + 1, rows.shape[1]))
    np.add.at(sums, index, rows)
    return np.asarray(sums / np.bincount(index)[:, None])


def _features(model: AttentionModel, images: Tensor) -> Tensor:
    with measuring(model):
        found = model.features(images)
    return found.flatten(2).mean(2) if found.dim() > 2 else found


def _bandwidth(model: AttentionModel, schema: Schema, federation: Federation) -> float:
    """Median distance between the signatures of generated images, in grey where the model wants colours.

    Of bags, of as many as the phantom has images, that show nothing.
    """
    device = next(model.parameters()).device
    if are_bags(federation.image_size):
        shape = federation.sites[0].test.images.shape[1:]
        bags = noise((PUBLIC, *shape), torch_generator(0, "public")).to(device)
        return max(median_distance(signatures(model, bags, schema).cpu().numpy()), 1e-6)
    size = max(SMALLEST_SIDE, federation.image_size)
    drawn = phantom(load_run_config({"data.image-size": size, "data.patients-per-site": PUBLIC}).data)
    images = drawn.batch(np.arange(len(drawn)), device).images
    rows = signatures(model, images.expand(-1, federation.channels, -1, -1), schema)
    return max(median_distance(rows.cpu().numpy()), 1e-6)
