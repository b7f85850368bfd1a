"""One site's test images under every corruption: what a model says and sees of each, held against the clean image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.evaluation import BATCH, predict
from common.attention.base import AttentionModel
from common.attention.maps import attention_maps
from common.attention.schema import schema_of
from common.attention.signature import signatures
from common.data.base import Dataset
from common.explanations.attention_stability import MEASURES, attention_stability
from common.metrics import METRICS
from common.metrics.base import Classified, Predictions, Weights
from common.metrics.bootstrap import resample_weights
from common.seeds import generator
from common.shift.dyads import spearman
from common.tasks.base import Task
from simulations.corruptions.corrupt import SEVERITIES, corrupt

Doubles = NDArray[np.float64]
Condition = tuple[str, int]
CLEAN: Condition = ("(clean)", 0)
FLOOR: Condition = ("(noise floor)", 0)
FLOOR_SPREAD = 0.005
"""Two passes that differ by noise of half a percent of white: so much moves by itself."""
MOVED = 0.5
"""Attention moved where it shares less than half of its top cells with what it was."""
MEANS = (*MEASURES, "signature_shift", "coupling", "flipped", "moved_alone", "flipped_alone")


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One or two models at one site under C conditions; the first of 1 + B columns is the images as they are.

    The other columns are resamples of patients, the same for both models and all conditions. NaN where undefined.

    Shapes: value, stable (mean `as_js`) [C, 1 + B]; reference the same or None; means of MEANS, each [C].
    """

    value: Doubles
    stable: Doubles
    means: dict[str, Doubles]
    reference: Doubles | None
    images: int


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a model says and sees of images: maps [N, H, W] and signatures [N, d], None where it has no such thing."""

    predictions: Predictions
    maps: Doubles | None
    signatures: Doubles | None


@dataclass(frozen=True, slots=True)
class Draws:
    """Seeds of the corruptions and of the resamples of one site, and how many resamples."""

    corruptions: int
    patients: int
    resamples: int


def conditions(names: Sequence[str]) -> list[Condition]:
    """Give clean, the noise floor, and every corruption in every severity."""
    return [CLEAN, FLOOR, *((name, severity) for name in names for severity in SEVERITIES)]


def judge_site(
    model: AttentionModel, reference: AttentionModel | None, task: Task, data: Dataset, names: list[str], draws: Draws
) -> Judged:
    """Judge a model, and perhaps a reference model on the very same corrupted images, on one site's test images."""
    whole = np.rint(data.images * (1 if data.images.dtype == np.uint8 else 255)).astype(np.uint8)
    clean = replace(data, images=whole)
    weights = resample_weights(data.patients, draws.resamples, draws.patients)
    before = look(model, task, clean)
    values, stable, others = [], [], []
    means: dict[str, list[float]] = {name: [] for name in MEANS}
    for images in _images(whole, names, draws.corruptions):
        now = replace(data, images=images)
        after = look(model, task, now)
        values.append(_value(task, after.predictions, weights))
        each = moved(before, after)
        stable.append(_resampled_mean(each["as_js"], weights))
        for name, column in means.items():
            column.append(float(each[name].mean()))
        if reference is not None:
            others.append(_value(task, predict([reference], task, now), weights))
    return Judged(
        np.stack(values),
        np.stack(stable),
        {name: np.array(column) for name, column in means.items()},
        np.stack(others) if others else None,
        len(data),
    )


def look(model: AttentionModel, task: Task, data: Dataset) -> Seen:
    """Predict, and read the mean map over attention sites that have a place, and each image's signature."""
    device = next(model.parameters()).device
    schema = schema_of(model) if model.attention_sites else None
    maps, vectors = [], []
    for start in range(0, len(data), BATCH):
        images = data.batch(np.arange(start, min(start + BATCH, len(data))), device).images
        found = list(attention_maps(model, images).values())
        if found and found[0].ndim == 3:
            maps.append(np.mean([each.cpu().numpy() for each in found], axis=0))
        if schema is not None:
            vectors.append(signatures(model, images, schema).cpu().numpy())
    return Seen(
        predict([model], task, data),
        np.concatenate(maps).astype(np.float64) if maps else None,
        np.concatenate(vectors).astype(np.float64) if vectors else None,
    )


def moved(before: Seen, after: Seen) -> dict[str, Doubles]:
    """Measure every image: MEANS, each [N]; the coupling is one number for all; NaN where there is nothing to measure.

    `moved_alone` and `flipped_alone` are the two dangerous cells: the one without the other says that a map explains
    nothing, or that watching it would not have told.
    """
    count = len(before.predictions)
    found: dict[str, Doubles] = {name: np.full(count, np.nan) for name in MEANS}
    flipped, changed = _flipped(before.predictions, after.predictions), _changed(before.predictions, after.predictions)
    if flipped is not None:
        found["flipped"] = flipped.astype(np.float64)
    if before.signatures is not None and after.signatures is not None:
        found["signature_shift"] = np.linalg.norm(before.signatures - after.signatures, axis=1)
    if before.maps is None or after.maps is None:
        return found
    found |= attention_stability(before.maps, after.maps)
    if changed is not None:
        found["coupling"] = np.full(count, spearman(1 - found["as_js"], changed))
    if flipped is not None:
        away = found["as_top"] < MOVED
        found["moved_alone"] = (away & ~flipped).astype(np.float64)
        found["flipped_alone"] = (flipped & ~away).astype(np.float64)
    return found


def _images(whole: NDArray[np.uint8], names: list[str], seed: int) -> Iterator[NDArray[np.uint8] | NDArray[np.float32]]:
    for name, severity in conditions(names):
        if (name, severity) == CLEAN:
            yield whole
        elif (name, severity) == FLOOR:
            noise = generator(seed, name).normal(0, FLOOR_SPREAD, whole.shape)
            yield (whole / 255 + noise).clip(0, 1).astype(np.float32)
        else:
            yield corrupt(whole, name, severity, seed)


def _value(task: Task, predictions: Predictions, weights: Weights) -> Doubles:
    metric = METRICS.load(task.metrics[0])()
    return np.concatenate([metric.value(predictions)[:1], metric.value(predictions, weights)])


def _resampled_mean(each: Doubles, weights: Weights) -> Doubles:
    """Give the mean of [N], and its means under weights [B, N]: [1 + B]."""
    totals = weights.sum(axis=1)
    means = np.divide(weights @ each, totals, out=np.full(len(weights), np.nan), where=totals > 0)
    return np.concatenate([[each.mean()], means])


def _flipped(before: Predictions, after: Predictions) -> NDArray[np.bool_] | None:
    """Tell which images were given another class; None for segmentation and several findings."""
    if not isinstance(before, Classified) or not isinstance(after, Classified) or before.labels.ndim == 2:
        return None
    one = before.probabilities.shape[1] == 1
    left, right = (p > 0.5 if one else p.argmax(1)[:, None] for p in (before.probabilities, after.probabilities))
    return np.asarray((left != right)[:, 0])


def _changed(before: Predictions, after: Predictions) -> Doubles | None:
    """Give |Δp| of each image, 0 to 1: total variation of classes, the mean over findings; None for segmentation."""
    if not isinstance(before, Classified) or not isinstance(after, Classified):
        return None
    gaps = np.abs(before.probabilities - after.probabilities)
    if before.labels.ndim == 2 or gaps.shape[1] == 1:
        return np.asarray(gaps.mean(axis=1))
    return np.asarray(gaps.sum(axis=1) / 2)
