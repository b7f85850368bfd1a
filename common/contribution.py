"""What a site adds to a round's sum, entry by entry: both sides lay it out from the run's settings alone.

Under privacy every site weighs the same and sends no count; without it, counts ride along inside the sum.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.arrays import Arrays, is_float
from common.config import RunConfig
from common.metrics.released import released_length
from common.privacy.plan import judged_rounds, measured_rounds
from common.privacy.shares import Grid
from common.privacy.signature import sensitivity
from common.secagg.layout import Layout, Segment
from common.secagg.params import threshold
from common.tasks.base import Task

Floats = NDArray[np.float64]
UPDATE, WEIGHT, LOSS = "update", "weight", "loss"
RELEASE, TOTAL, SQUARES, PATIENTS, METRICS = "release", "total", "squares", "patients", "metrics"
MOST_PATIENTS = 100_000
"""A public bound for the ring; a larger site is refused, never cut."""
LARGEST_LOSS = 20.0
"""Of one image, on average over a site: a larger one says nothing more."""
TAIL = 12.0
"""Standard deviations of noise for which the ring has room."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long things are: entries of the floating arrays, of a signature, and numbers of classes and metric sums."""

    arrays: int
    signature: int
    classes: int
    metrics: int


def lengths(config: RunConfig, arrays: Arrays, signature: int, task: Task) -> Lengths:
    """Count, from what server and sites know alike."""
    floats = sum(array.size for array in arrays.values() if is_float(array))
    return Lengths(floats, signature, class_count(config, task), released_length(config.task.name, task.outputs))


def class_count(config: RunConfig, task: Task) -> int:
    """Give the number of classes by which signatures are routed: those of images, or with and without foreground."""
    names = {"binary": 2, "segmentation": 2, "multilabel": 1}
    return names.get(config.task.name, max(2, len(task.class_names)))


def training_segments(config: RunConfig, number: int, of: Lengths, noise: float) -> tuple[Segment, ...]:
    """Lay out what a round's training sends."""
    privacy, secure = config.privacy, config.secure_aggregation
    if privacy.on and privacy.placement != "site":
        patients = MOST_PATIENTS * privacy.sampling_probability / 10
        bound = privacy.clip_norm * (patients + TAIL * noise)
        update = [Segment(UPDATE, of.arrays, bound, finest=_finest(config, privacy.clip_norm))]
    elif privacy.on:
        update = [Segment(UPDATE, of.arrays, secure.update_bound)]
    else:
        update = [
            Segment(UPDATE, of.arrays, secure.update_bound * secure.most_images),
            Segment(WEIGHT, 1, float(secure.most_images), whole=True),
            Segment(LOSS, 1, LARGEST_LOSS * secure.most_images),
        ]
    measured = signature_segments(config, of) if number in measured_rounds(config) else ()
    return (*update, *measured)


def judging_segments(config: RunConfig, number: int, of: Lengths) -> tuple[Segment, ...]:
    """Lay out what the judgement after a round sends; empty when nothing is judged."""
    judged = not config.privacy.on or number in judged_rounds(config)
    bound = float(MOST_PATIENTS + TAIL * config.privacy.metrics_noise_multiplier)
    rows = Segment(METRICS, of.metrics, bound, finest=_finest(config, 1.0))
    metrics = (rows,) if judged and of.metrics else ()
    last = number == config.rounds and config.attention.every > 0
    return (*metrics, *(signature_segments(config, of) if last else ()))


def signature_segments(config: RunConfig, of: Lengths) -> tuple[Segment, ...]:
    """Lay out a signature: the noisy release under privacy, its sums without."""
    if not of.signature:
        return ()
    privacy = config.privacy
    if privacy.on:
        most = sensitivity(privacy.signature_clip)
        bound = privacy.signature_clip * MOST_PATIENTS / 10 + TAIL * privacy.signature_noise_multiplier * most
        length = of.classes * (2 * of.signature + 1)
        return (Segment(RELEASE, length, bound, finest=_finest(config, most)),)
    bound = float(config.attention.patients)
    sums = (Segment(TOTAL, of.signature, bound), Segment(SQUARES, of.signature, bound))
    return (*sums, Segment(PATIENTS, 1, bound, whole=True))


def _finest(config: RunConfig, clip: float) -> float:
    """Give the finest grid on which shares of noise are drawn: 18 bits to a sensitivity cost nothing over more."""
    return 2.0**18 / clip if config.privacy.placement == "distributed" else math.inf


def grids(config: RunConfig, layout: Layout) -> dict[str, Grid]:
    """Give the integers on which each noised segment lies, where noise comes in shares; empty elsewhere."""
    privacy, secure = config.privacy, config.secure_aggregation
    if privacy.placement != "distributed" or not privacy.on:
        return {}
    honest = threshold(layout.sites, secure.colluders) - secure.colluders
    clips = _clips(config)
    return {
        segment.name: Grid(layout.scale(segment), clips[segment.name], segment.length, honest)
        for segment in layout.segments
    }


def saturate(arrays: Arrays, layout: Layout) -> None:
    """Cut entries to their segments' bounds, in place.

    Under privacy a refusal would tell of patients at no price. Cutting brings no two sums farther apart than they were,
    so that noise covers what is left as it covered the whole.
    """
    for segment in layout.segments:
        np.clip(arrays[segment.name], -segment.bound, segment.bound, out=arrays[segment.name])


def reach(config: RunConfig, layout: Layout) -> dict[str, float]:
    """Give how far one patient moves each noised segment of a sum, in L2: his clip, and √d/s where sites round first.

    Rounded at random to a grid of s to the unit, each of d entries may move by less than one step more.
    """
    rounds, clips = config.secure_aggregation.enabled, _clips(config)
    return {
        each.name: clips[each.name] + (math.sqrt(each.length) / layout.scale(each) if rounds else 0.0)
        for each in layout.segments
    }


def _clips(config: RunConfig) -> dict[str, float]:
    privacy = config.privacy
    return {UPDATE: privacy.clip_norm, RELEASE: sensitivity(privacy.signature_clip), METRICS: 1.0}


def flatten(update: Mapping[str, NDArray[np.floating]]) -> NDArray[np.floating]:
    """Put the floating arrays one after the other, in their own precision."""
    parts = [np.ravel(array) for array in update.values() if is_float(array)]
    return np.concatenate(parts) if parts else np.zeros(0)


def unflatten(vector: NDArray[np.floating], arrays: Arrays) -> Arrays:
    """Cut a vector into arrays of the shapes and dtypes of the floating ones of `arrays`."""
    found, start = {}, 0
    for name, array in arrays.items():
        if is_float(array):
            found[name] = vector[start : start + array.size].reshape(array.shape).astype(array.dtype)
            start += array.size
    return found


def bounded(vector: NDArray[np.floating], bound: float) -> NDArray[np.floating]:
    """Shorten a vector to a norm of at most `bound`; the site does it, and the server tests it on the sum.

    What is not finite stays as it is, to be refused where it is laid out.
    """
    norm = float(np.linalg.norm(vector))
    return np.asarray(vector * (bound / norm)) if bound < norm < math.inf else vector
