"""One process's bench: puts a method on a stream, times it, and judges what it said and what it left behind."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from client.adaptation import ADAPTATIONS
from client.adaptation.base import Adaptation
from client.adaptation.build import build_adaptation
from client.adaptation.measure import add_sums, measure_sums, passes, source_of
from client.adaptation.source import Source
from client.evaluation import predict
from common.attention.base import AttentionModel
from common.data.base import Batch, Dataset, concatenate
from common.errors import ConsiliumError
from common.metrics.base import Classified
from common.seeds import derive
from simulations.adaptation.cells import NONE, SOURCES, Cell, Target, read_method
from simulations.adaptation.scores import AFTERWARDS, ONLINE, Judge, Resampled, columns, source_threshold
from simulations.judging import Case, Court
from simulations.streams.base import Draw, Ground, Halves, Stream, apart, batches, halvable, halve, places, pooled
from simulations.streams.make import load_stream

Row = dict[str, Any]
Answer = Callable[[Tensor], Tensor]
COUNTS = ("updates", "skipped", "resets")
SIZES = ("images", "patients", "judged_images", "judged_patients")
MEASURED = (*columns(), "milliseconds", "relative_time", *COUNTS)


class Taken(NamedTuple):
    """A stream that went through a method: what it said meanwhile, and how long an image took."""

    said: Classified
    seconds: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for every cell."""

    modality: str
    resamples: int
    code: str


class Bench:
    """Runs cells of one run. What cells share is made once: a site's halves, a stream, a model, the time without."""

    def __init__(self, court: Court, where: list[Target], terms: Terms) -> None:
        self._court, self._terms = court, terms
        self.task = court.task
        self._site_of = {target.training: target.site for target in reversed(where)}
        self._ground = lru_cache(maxsize=None)(self._make_ground)
        self._model = lru_cache(maxsize=8)(self._load_model)
        self._stream = lru_cache(maxsize=1)(self._make_stream)
        self._bare = lru_cache(maxsize=1)(self._time_bare)
        self._threshold = lru_cache(maxsize=None)(self._find_threshold)
        self._source = lru_cache(maxsize=32)(self._measure_source)

    def run(self, cell: Cell) -> tuple[Row, Resampled]:
        """Give the row of a cell and its scores over resampled patients; a row without scores says why it has none."""
        try:
            return self._run(cell)
        except ConsiliumError as error:
            return self._row(cell, {}, str(error)), {}

    def stream(self, cell: Cell) -> Stream:
        """Give a cell's stream.

        Raises:
            DataError, ConfigError: It cannot be drawn.
        """
        return self._stream(cell.place)

    def model(self, cell: Cell) -> AttentionModel:
        """Give a cell's shipped model."""
        return self._model(cell.seed, cell.training, cell.site)

    def passed(self, cell: Cell) -> Adaptation:
        """Give a cell's method after its stream went through.

        Raises:
            ConsiliumError: The method does not fit, or the stream cannot be drawn.
        """
        method = self._method(cell, self.model(cell))
        self._take(method, self.stream(cell))
        return method

    def _run(self, cell: Cell) -> tuple[Row, Resampled]:
        stream = self.stream(cell)
        method = self._method(cell, self.model(cell))
        online = self._take(method, stream)
        bare = online.seconds if cell.method == NONE else self._bare(cell.place)
        after = self._said(stream.judged, cell.batch, method.predict, _device(method))
        judge = Judge(self._threshold(cell.seed, cell.training), self._terms.resamples, self._court.seed)
        found = {
            **_sizes(stream),
            **judge.scores(ONLINE, online.said),
            **judge.scores(AFTERWARDS, after),
            "milliseconds": 1000 * online.seconds,
            "relative_time": online.seconds / bare,
            **{name: getattr(method.counts, name) for name in COUNTS},
        }
        resampled = {
            **judge.resampled(ONLINE, online.said, places(stream.arriving)),
            **judge.resampled(AFTERWARDS, after, places(stream.judged)),
        }
        return self._row(cell, found), resampled

    def _row(self, cell: Cell, found: Row, reason: str = "") -> Row:
        empty: Row = {**dict.fromkeys(SIZES, 0), **dict.fromkeys(MEASURED, float("nan"))}
        return {**asdict(cell), **empty, **found, "reason": reason, "code": self._terms.code}

    def _method(self, cell: Cell, model: AttentionModel) -> Adaptation:
        name, values = read_method(cell.method)
        seed = derive(self._court.seed, "adaptation", cell.site, cell.stream, cell.seed)
        source = self._source(cell.seed, cell.training, tuple(ADAPTATIONS.load(name).needs))
        return build_adaptation(name, model, source, {"seed": seed, **values})

    def _take(self, method: Adaptation, stream: Stream) -> Taken:
        """Let the stream through; a first batch, forgotten again, pays for what is set up once."""
        device = _device(method)
        method.predict(stream.arriving.batch(np.arange(min(stream.batch, len(stream.arriving))), device).images)
        seconds = 0.0

        def adapt(images: Tensor) -> Tensor:
            nonlocal seconds
            began = _now(device)
            found = method.adapt(images)
            seconds += _now(device) - began
            return found

        said = self._said(stream.arriving, stream.batch, adapt, device)
        return Taken(said, seconds / len(stream.arriving))

    def _said(self, data: Dataset, size: int, answer: Answer, device: torch.device) -> Classified:
        def found() -> Iterator[tuple[Tensor, Batch]]:
            for rows in batches(len(data), size):
                batch = data.batch(rows, device)
                yield answer(batch.images), batch

        collected = self.task.collect(found(), data.patients)
        assert isinstance(collected, Classified)  # the study refuses other tasks
        return collected

    def _make_ground(self, training: str, site: str) -> Ground:
        tests = {name: self._court.data(name, "test") for name in self._sources(training)}
        source = apart({name: self._halved(name, data) for name, data in tests.items() if halvable(data)})
        if site == SOURCES:
            return Ground(source, source)
        whole = concatenate([self._court.data(site, split) for split in ("train", "val", "test")])
        return Ground(self._halved(site, whole), source)

    def _halved(self, site: str, data: Dataset) -> Halves:
        return halve(data, derive(self._court.seed, "halves", site))

    def _make_stream(self, place: Cell) -> Stream:
        make = load_stream(place.stream, self._terms.modality)
        seed = derive(self._court.seed, "stream", place.site, place.stream, place.seed)
        return make(self._ground(place.training, place.site), Draw(place.batch, seed, self._terms.modality))

    def _load_model(self, seed: int, training: str, site: str) -> AttentionModel:
        (model,) = self._court.models(Case(seed, (training,), self._site_of[training] if site == SOURCES else site))
        return model

    def _time_bare(self, place: Cell) -> float:
        return self._take(self._method(place, self.model(place)), self.stream(place)).seconds

    def _sources(self, training: str) -> list[str]:
        sites = [site.name for site in self._court.federation.sites if site.role == "source"]
        return [name for name in sites if training != f"without/{name}"]

    def _validation(self, training: str) -> Dataset:
        return pooled({name: self._court.data(name, "val") for name in self._sources(training)})

    def _find_threshold(self, seed: int, training: str) -> float:
        said = predict([self._model(seed, training, SOURCES)], self.task, self._validation(training))
        assert isinstance(said, Classified)
        return source_threshold(said)

    def _measure_source(self, seed: int, training: str, needs: tuple[str, ...]) -> Source:
        """Measure site by site and add, pass after pass, as a federation would."""
        model, task = self._model(seed, training, SOURCES), self.task
        source = source_of({}, task)
        for names in passes(needs):
            data = [self._court.data(site, "val") for site in self._sources(training)]
            source = source_of(
                add_sums([measure_sums(model, task, each, names, source) for each in data]), task, source
            )
        return source


def _sizes(stream: Stream) -> Row:
    each = [(len(data), len(np.unique(data.patients))) for data in (stream.arriving, stream.judged)]
    return dict(zip(SIZES, (*each[0], *each[1]), strict=True))


def _device(method: Adaptation) -> torch.device:
    return next(method.model.parameters()).device


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
