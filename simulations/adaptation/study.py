"""Which method of adaptation helps or harms a finished run's model, on which streams, at which sites?"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.adaptation import ADAPTATIONS
from common.errors import ConfigError
from simulations.adaptation.bench import Bench, Row, Terms
from simulations.adaptation.cells import Cell, Target, Wish, cells, targets
from simulations.adaptation.rows import Record
from simulations.engine import choose_workers
from simulations.experiment import Experiment
from simulations.finished import Step
from simulations.judging import open_court
from simulations.record import code_record
from simulations.run_folder import locked
from simulations.streams import STREAMS
from simulations.trainer import FOREVER
from simulations.workers import Emit, Workers

FOLDER = "adaptation"


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """Every cell that was asked for, finished, with its rows."""

    run: Path
    privacy: str
    wish: Wish
    seeds: tuple[int, ...]
    where: list[Target]
    cells: list[Cell]
    record: Record
    bench: Bench

    @property
    def rows(self) -> list[Row]:
        """One row per cell, in the order of the cells."""
        return [self.record.row(cell) for cell in self.cells]


def wished(methods: str, streams: str, batches: str, held_out: str, modality: str) -> Wish:
    """Read what a person wrote, comma-separated; nothing takes all (corruptions only with a modality).

    Raises:
        ConfigError: A batch size is no number.
    """
    every = [name for name in STREAMS if name != "mixed" or modality]
    sizes = _words(batches)
    if not all(size.isdigit() for size in sizes):
        raise ConfigError(f"batch sizes are {batches!r}. Allowed are whole numbers, comma-separated, as in 8,64.")
    wish = Wish(
        methods=tuple(_words(methods) or ADAPTATIONS),
        streams=tuple(_words(streams) or every),
        batches=tuple(map(int, sizes)),
        held_out=tuple(_words(held_out)),
        modality=modality,
    )
    return wish.check()


def study_adaptation(run: Path, wish: Wish, out: Path | None = None, step: Step = lambda text: None) -> Adapted:
    """Finish every cell that is not finished; rows are appended to `rows.jsonl` in `out` as they end.

    A method that cannot work on the model or the stream has a row that says why, and the others go on. By default
    `out` is RUN/adaptation.

    Raises:
        RunFolderError: The run is not finished, its data are others now, every site trained its only model, or `out`
            holds another study or is in use.
        ConfigError: An unknown method, stream or site, a corruption on the wrong modality, or a segmentation run.
        DataError: Fewer than two patients.
    """
    wish, out = wish.check(), out or run / FOLDER
    results, experiment, court = open_court(run)
    if court.task.dense:
        raise ConfigError(
            f"the task of {run} is segmentation. Streams are judged by classes of whole images; give a run of a "
            f"classification task."
        )
    where = targets(court, experiment, wish.held_out)
    seeds = tuple(experiment.study.seeds)
    asked = cells(wish, seeds, where)
    basis = {"run": experiment.digest(), "data": court.federation.data_digest, "resamples": experiment.study.bootstrap}
    terms = Terms(wish.modality, experiment.study.bootstrap, code_record()["digest"][:12])
    bench = Bench(court, where, terms)
    with locked(out):
        record = Record(out, {**basis, "modality": wish.modality})
        todo = [cell for cell in asked if not record.has(cell, terms.code)]
        _finish(todo, bench, record, _workers(experiment, len(todo)), step)
    return Adapted(run, str(results.record["privacy"]), wish, seeds, where, asked, record, bench)


def shown_cell(found: Adapted) -> Cell:
    """Choose where attention is looked at: a random order at the first new site if it was asked for, largest batch."""
    asked = [cell for cell in found.cells if cell.seed == found.seeds[0] and not found.record.row(cell)["reason"]]
    order = sorted(asked or found.cells, key=lambda cell: (cell.stream != "iid", -cell.batch))
    return order[0].place


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _workers(experiment: Experiment, jobs: int) -> int:
    wish = None if experiment.study.workers < 0 else experiment.study.workers
    return choose_workers(experiment.config, wish, jobs)


def _finish(todo: Sequence[Cell], bench: Bench, record: Record, workers: int, step: Step) -> None:
    done, began = 0, time.monotonic()

    def answer(request: bytes, emit: Emit) -> bytes:
        cell = todo[int(request)]
        row, resampled = bench.run(cell)
        if not row["reason"]:
            record.keep(cell, resampled)
        emit(json.dumps(row).encode())
        return b""

    def finished(index: int, event: bytes) -> None:
        nonlocal done
        record.append(todo[index], json.loads(event))
        done += 1
        step(_progress(done, len(todo), time.monotonic() - began, todo[index]))

    if todo:
        step(f"{len(todo)} cells to go")
        with Workers(workers, answer) as pool:
            answers = pool.run([str(index).encode() for index in range(len(todo))], FOREVER, finished)
        for failed in [each for each in answers if not isinstance(each, bytes)]:
            raise failed or TimeoutError


def _progress(done: int, count: int, seconds: float, last: Cell) -> str:
    left = seconds / done * (count - done)
    rest = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
    return f"{done} of {count} cells, about {rest} left ({last.method} on {last.stream} at {last.site})"
