"""Shift of attention between the sites of a finished run: how far apart, whether by chance, and what moved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from torch import Tensor, nn

from client.evaluation import BATCH
from client.health import groups
from common.attention.base import AttentionModel
from common.attention.choice import choose_images
from common.attention.distance import add_w, w_blocks
from common.attention.schema import Schema, schema_of
from common.attention.signature import measuring, signatures
from common.config import load_run_config
from common.data.base import Dataset
from common.data.federation import Federation
from common.data.phantom import SMALLEST_SIDE, phantom
from common.errors import AttentionError, RunFolderError
from common.seeds import derive
from common.shift.embedding import Embedding, add_m, embedding, median_distance
from common.shift.floor import floor
from common.shift.frechet import add_f, frechet
from common.shift.moments import Moments, moments
from common.shift.nulls import permutation_test
from common.shift.projected import d2, whitening
from simulations.judging import Case, Court
from simulations.results import FEDERATED, load_results
from simulations.run_folder import read_settings

DISTANCES = ("add_w", "add_m", "add_f", "d2_projected", "d2_marginal", "feature_frechet")
IMAGES_PER_PATIENT, PATIENTS = 32, 512
PUBLIC = 4
"""Patients of each generated hospital whose signatures give ADD-M its bandwidth: public, they tell of no patient."""

Row = dict[str, Any]
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


@dataclass(frozen=True, slots=True)
class Shift:
    """Averages over seeds: `pairs` has a row per pair of sites, `blocks` one per pair and block, largest first."""

    run: Path
    privacy: str
    seeds: tuple[int, ...]
    sites: tuple[str, ...]
    pairs: list[Row]
    blocks: list[Row]


def study_shift(run: Path, method: str = FEDERATED) -> Shift:
    """Measure every pair of sites with the run's final models, on the patients of their test splits.

    Raises:
        RunFolderError: The run is not finished, is a mixture of two, or its data are others now.
        AttentionError: Its model names no attention site.
    """
    results, experiment = load_results(run), read_settings(run)
    if results.record["config_digest"] != experiment.digest():
        raise RunFolderError(
            f"{run} mixes two runs: run.json and the settings differ. Give a folder of one run, whole."
        )
    if method not in results.methods and method != FEDERATED:
        raise RunFolderError(f"{run} has no {method} model. It has {', '.join(results.methods)}; name one of them.")
    court = Court(run, experiment.config, 0, 0)
    if court.federation.data_digest != results.record["data"]["digest"]:
        raise RunFolderError(
            f"the data of {run} are not those that it was trained on. Put the same data back where the settings say."
        )
    names = tuple(site.name for site in court.federation.sites)
    sources = [site.name for site in court.federation.sites if site.role == "source"]
    pairs: list[list[Row]] = []
    blocks: list[list[Row]] = []
    for seed in experiment.study.seeds:
        found, moved = _measure(court, names, sources, seed, method)
        pairs.append(found)
        blocks.append(moved)
    table = [_average(rows) for rows in zip(*pairs, strict=True)]
    for row, q in zip(table, false_discovery_control([row["p"] for row in table]), strict=True):
        row["q"] = float(q)
    return Shift(
        run,
        str(results.record["privacy"]),
        tuple(experiment.study.seeds),
        names,
        table,
        [_average(rows) for rows in zip(*blocks, strict=True)],
    )


def site_rows(model: AttentionModel, schema: Schema, data: Dataset, seed: int) -> SiteRows:
    """Measure a site's patients: mean signature and mean features of each patient's images.

    Features are what the model's last linear or convolution layer reads, averaged over places.
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
    heads = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)]
    seen: list[Tensor] = []
    handle = heads[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with measuring(model):
            model(images)
    finally:
        handle.remove()
    return seen[0].flatten(2).mean(2) if seen[0].dim() > 2 else seen[0]


def _measure(
    court: Court, names: Sequence[str], sources: Sequence[str], seed: int, method: str
) -> tuple[list[Row], list[Row]]:
    rows: dict[str, SiteRows] = {}
    for name in names:
        (model,) = court.models(Case(seed, (method,), name))
        if not model.attention_sites:
            raise AttentionError(
                f"the model of {court.federation.name}'s run names no attention site. A shift of attention needs one; "
                f"train with model.attention, such as se or self-attention."
            )
        schema = schema_of(model)
        rows[name] = site_rows(model, schema, court.data(name, "test"), derive(seed, "shift", name))
    embed = embedding(schema.length, _bandwidth(model, schema, court.federation), 0)
    pooled = moments(np.concatenate([rows[name].signatures for name in sources]))
    whiten = [
        whitening(
            np.concatenate([rows[name].cells for name in sources]),
            np.concatenate([rows[name].labels for name in sources]),
            projected,
        )
        for projected in (True, False)
    ]
    pairs: list[Row] = []
    blocks: list[Row] = []
    for first, second in combinations(names, 2):
        left, right = rows[first], rows[second]
        head = {"first": first, "second": second}
        test = permutation_test(whiten[0](left.signatures), whiten[0](right.signatures), derive(seed, first, second))
        pairs.append(
            {
                **head,
                **_distances(schema, left, right, embed, pooled),
                "d2_projected": d2(left.signatures, right.signatures, whiten[0]),
                "d2_marginal": d2(left.signatures, right.signatures, whiten[1]),
                "feature_frechet": frechet(left.features, right.features),
                "p": test.p,
                "patients": min(len(left.signatures), len(right.signatures)),
            }
        )
        blocks += [{**head, **row} for row in _moved(schema, left, right)]
    return pairs, blocks


def _bandwidth(model: AttentionModel, schema: Schema, federation: Federation) -> float:
    """Median distance between the signatures of generated images, in grey where the model wants colours."""
    size = max(SMALLEST_SIDE, federation.image_size)
    drawn = phantom(load_run_config({"data.image-size": size, "data.patients-per-site": PUBLIC}).data)
    images = drawn.batch(np.arange(len(drawn)), next(model.parameters()).device).images
    rows = signatures(model, images.expand(-1, federation.channels, -1, -1), schema)
    return max(median_distance(rows.cpu().numpy()), 1e-6)


def _distances(schema: Schema, left: SiteRows, right: SiteRows, embed: Embedding, pooled: Moments) -> Row:
    sides = moments(left.signatures), moments(right.signatures)

    def distance(a: Rows, b: Rows) -> float:
        return add_w(schema, a, b)

    return {
        "add_w": distance(sides[0].mean, sides[1].mean),
        "add_w_floor": floor(pooled, *sides, distance, 0),
        "add_m": add_m(left.signatures, right.signatures, embed),
        "add_f": add_f(*sides),
    }


def _moved(schema: Schema, left: SiteRows, right: SiteRows) -> Iterator[Row]:
    distances = w_blocks(schema, left.signatures.mean(0), right.signatures.mean(0))
    for label, distance in distances.items():
        yield {"block": label, "w": distance}


def _average(rows: Sequence[Row]) -> Row:
    """Average over seeds; p is twice the median, which is valid however the seeds depend (Rüger 1978)."""
    found: Row = {}
    for key, value in rows[0].items():
        column = [row[key] for row in rows]
        if key == "p":
            found[key] = min(1.0, (2 if len(rows) > 1 else 1) * float(np.median(column)))
        else:
            found[key] = value if isinstance(value, str | int) else float(np.mean(column))
    return found
