"""What a site tells of its validation images for adaptation elsewhere: sums that add across sites."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from client.adaptation.measure_base import Seen
from client.adaptation.measures import MEASURES
from client.adaptation.source import Source
from client.evaluation import BATCH
from common.attention.base import AttentionModel
from common.data.base import Batch, Dataset
from common.errors import AdaptationError, DataError, nearest
from common.tasks.base import Task
from common.tasks.classification import Multilabel

Sums = dict[str, NDArray[np.float64]]
"""Of one measurement or of several added; "images" counts. Two of the same model, task and wants may be added."""


def measure_source(model: AttentionModel, task: Task, data: Dataset, wants: Sequence[str] = ()) -> Source:
    """Measure on one site's validation images what `wants` names, in as many passes as that takes.

    Sites that measure apart use `measure_sums` and `add_sums`, pass after pass.

    Args:
        model: The shipped model; it is left as it was.
        task: Of the run.
        data: Labelled images that did not train the model.
        wants: Fields of `Source`, such as a method's `needs`; empty measures nothing but what the task is.

    Raises:
        AdaptationError: No such field.
        DataError: There are no labels where a field needs them.
    """
    source = source_of({}, task)
    for names in passes(wants):
        source = source_of(measure_sums(model, task, data, names, source), task, source)
    return source


def passes(wants: Sequence[str]) -> list[tuple[str, ...]]:
    """Divide `wants` into passes over the images; a later one needs what an earlier one found.

    Raises:
        AdaptationError: No such field.
    """
    for name in wants:
        if name not in MEASURES:
            raise AdaptationError(
                f"nothing called {name!r} is measured at source sites.{nearest(name, list(MEASURES))} "
                f"Allowed are {', '.join(MEASURES)}."
            )
    first = dict.fromkeys(need for name in wants for need in MEASURES[name].after)
    first.update(dict.fromkeys(name for name in wants if not MEASURES[name].after))
    second = tuple(name for name in dict.fromkeys(wants) if MEASURES[name].after)
    return [names for names in (tuple(first), second) if names]


def measure_sums(
    model: AttentionModel, task: Task, data: Dataset, names: Sequence[str], known: Source | None = None
) -> Sums:
    """Add up one pass over `data`; `known` is what earlier passes found.

    Raises:
        DataError: There are no labels where a field needs them.
    """
    mode = model.training
    model.eval()
    try:
        measures = {name: MEASURES[name](model, known or source_of({}, task)) for name in names}
        for batch, patients in _batches(model, task.prepare(data)):
            with torch.no_grad():
                features = model.features(batch.images)
                logits = model(batch.images)
            seen = Seen(batch.images, _labels(batch, task), features, logits, patients)
            for measure in measures.values():
                measure.add(seen)
    finally:
        model.train(mode)
    sums = {f"{name}/{key}": value for name, found in measures.items() for key, value in found.sums().items()}
    return {"images": np.array(float(len(data))), **sums}


def add_sums(parts: Sequence[Mapping[str, NDArray[np.float64]]]) -> Sums:
    """Add what several sites measured.

    Raises:
        DataError: They did not measure the same.
    """
    shapes = [{name: value.shape for name, value in part.items()} for part in parts]
    if not parts or any(other != shapes[0] for other in shapes):
        raise DataError(
            "source sites measured different things. Sums are added only of the same model, task and fields; measure "
            "again with one version of the model."
        )
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


def source_of(sums: Mapping[str, NDArray[np.float64]], task: Task, known: Source | None = None) -> Source:
    """Turn added sums into what methods may know, beside what is `known` from earlier passes."""
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    for path, value in sums.items():
        name, _, key = path.partition("/")
        if key:
            found.setdefault(name, {})[key] = value
    values: dict[str, Any] = {field: getattr(known, field) for field in Source.__slots__} if known else {}
    values |= {name: MEASURES[name].read(own) for name, own in found.items()}
    values["exclusive"] = not isinstance(task, Multilabel)
    values["images"] = int(sums.get("images", values.get("images", 0)))
    return Source(**values)


def _batches(model: AttentionModel, data: Dataset) -> Iterator[tuple[Batch, NDArray[np.str_]]]:
    device = next(model.parameters()).device
    for start in range(0, len(data), BATCH):
        index = np.arange(start, min(start + BATCH, len(data)))
        yield data.batch(index, device), data.patients[index]


def _labels(batch: Batch, task: Task) -> torch.Tensor:
    found = batch.masks if task.dense else batch.labels
    if found is None:
        raise DataError(
            "the images have no labels. What methods may know of the source is measured on labelled validation images."
        )
    return (found > 0).long() if task.outputs == 1 else found.long()
