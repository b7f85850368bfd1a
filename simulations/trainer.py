"""All trainings of a study: each runs in one worker process, as many at a time as there are cores.

Every training is the same federated code in one process, so a study with several trainings keeps all cores busy without
moving arrays between processes. A single training spreads its sites over the workers instead.
"""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from client.site import folder_name
from common.errors import ConsiliumError
from server.history import POOLED, RoundRecord
from server.rounds import StopFlag, Stopped
from simulations.display import Progress
from simulations.engine import Training, choose_workers, train
from simulations.protocols import Plan
from simulations.workers import Emit, Workers

FOREVER = 1e6
DONE, STOPPED = b"done", b"stopped"
Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One plan under one seed, with its folder."""

    seed: int
    plan: Plan
    training: Training

    @property
    def folder(self) -> Path:
        """Where its checkpoint and history lie."""
        return Path(self.training.config.out)


def training_folder(run: Path, seed: int, plan: str) -> Path:
    """Give the folder of one training in a run folder: a plan is a kind, or a kind and a site, whatever its name."""
    kind, _, site = plan.partition("/")
    folder = run / "trainings" / f"seed-{seed}" / kind
    return folder / folder_name(site) if site else folder


def new_stop_flag() -> "multiprocessing.synchronize.Event":
    """Make a flag that worker processes see too; make it before they start."""
    return multiprocessing.get_context("fork").Event()


def train_all(jobs: Sequence[Job], engine: str, workers: int | None, stop: StopFlag, watch: Watch) -> None:
    """Train everything, or go on from the checkpoints.

    Raises:
        ConsiliumError: The first error of a training.
        Stopped: Each training checkpointed its round, because `stop` was set.
    """
    if engine == "ray":
        from simulations.ray_engine import train_on_ray

        for job in [job for job in jobs if len(job.plan.groups) > 1]:
            with _named(job):
                train_on_ray(job.training, _observer(job, watch), stop, workers)
        jobs = [job for job in jobs if len(job.plan.groups) == 1]
    count = choose_workers(jobs[0].training.config, workers, len(jobs)) if jobs else 0
    if count < 2:
        for job in jobs:
            with _named(job):
                train(job.training, _observer(job, watch), stop, workers)
        return
    _farm(jobs, count, stop, watch)


@dataclass(frozen=True, slots=True)
class _AnyOf:
    """Set when one of several flags is."""

    flags: tuple[StopFlag, ...]

    def is_set(self) -> bool:
        return any(flag.is_set() for flag in self.flags)


def _farm(jobs: Sequence[Job], count: int, stop: StopFlag, watch: Watch) -> None:
    """Give whole trainings to worker processes, the longest first; when one fails, all stop after their round."""
    ordered = sorted(jobs, key=lambda job: -sum(len(group) for group in job.plan.groups))
    failed = new_stop_flag()
    enough = _AnyOf((stop, failed))

    def run(request: bytes, emit: Emit) -> bytes:
        job = ordered[int(request)]
        if enough.is_set():
            return STOPPED
        try:
            with _named(job):
                train(job.training, _observer(job, lambda progress: emit(_encode(progress))), enough, 0)
        except Stopped:
            return STOPPED
        except Exception:
            failed.set()
            raise
        return DONE

    with Workers(count, run) as pool:
        answers = pool.run(
            [str(index).encode() for index in range(len(ordered))],
            FOREVER,
            lambda _, event: watch(Progress(**json.loads(event))),
        )
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    if STOPPED in answers:
        raise Stopped


@contextmanager
def _named(job: Job) -> Iterator[None]:
    """Say which of many trainings an error belongs to, and where a site's own words are."""
    try:
        yield
    except ConsiliumError as error:
        text = f"training {label(job)}: {error}"
        if ": internal" in text:
            text += " What happened inside a site is not sent to the server; --verbose shows it on this machine."
        error.args = (text,)
        raise


def label(job: Job) -> str:
    """Name a training for people."""
    return f"{job.plan.name} · seed {job.seed}"


def _observer(job: Job, watch: Watch) -> Callable[[RoundRecord], None]:
    def observe(record: RoundRecord) -> None:
        metrics = dict(record.evaluation.get(POOLED, {}))
        watch(Progress(label(job), record.round, job.training.config.rounds, metrics))

    return observe


def _encode(progress: Progress) -> bytes:
    return json.dumps(asdict(progress)).encode()
