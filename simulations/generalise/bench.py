"""The bench before which models sit: each predicts each set of images once, and what it said is kept in the folder."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from client.evaluation import predict
from client.site import folder_name
from common.config import RunConfig
from common.data.base import Dataset, concatenate
from common.data.federation import Federation, open_federation
from common.errors import RunFolderError
from common.metrics.base import Classified, Predictions, Segmented
from common.tasks.base import Task
from common.tasks.build import build_task
from simulations.engine import choose_workers
from simulations.generalise.folds import Split
from simulations.judging import trained_model
from simulations.protocols import Jury
from simulations.results import write_whole
from simulations.trainer import FOREVER, Job
from simulations.workers import Emit, Workers


@dataclass(frozen=True, slots=True)
class Sitting:
    """Trained models, whose probabilities are averaged, before one site's images."""

    seed: int
    jury: Jury
    site: str
    split: Split


class Bench:
    """Predicts in worker processes, and remembers in `FOLDER/predictions`."""

    def __init__(self, folder: Path, config: RunConfig, jobs: Sequence[Job], workers: int | None) -> None:
        self._folder, self._workers = folder, workers
        self._jobs: Mapping[tuple[int, str], Job] = {(job.seed, job.plan.name): job for job in jobs}
        self._config = config
        self.federation: Federation = open_federation(config.data)
        self.task: Task = build_task(config.task, self.federation.classes, self.federation.mask_classes)

    def sit(self, sittings: Sequence[Sitting]) -> None:
        """Predict what is not known yet."""
        todo = [each for each in dict.fromkeys(sittings) if not self._path(each).exists()]
        if not todo:
            return

        def answer(request: bytes, emit: Emit) -> bytes:
            self._predict(todo[int(request)])
            return b"done"

        with Workers(choose_workers(self._config, self._workers, len(todo)), answer) as pool:
            for found in pool.run([str(number).encode() for number in range(len(todo))], FOREVER):
                if not isinstance(found, bytes):
                    raise found or TimeoutError

    def predictions(self, sitting: Sitting) -> Predictions:
        """Give what a model said, predicted now if it was not before."""
        self.sit([sitting])
        arrays = load(self._path(sitting).read_bytes())
        patients = self.data(sitting.site, sitting.split).patients
        kind = Segmented if self.task.dense else Classified
        if len(next(iter(arrays.values()))) != len(patients):
            raise RunFolderError(f"{self._path(sitting)} is of other images. Remove `predictions` there and run again.")
        return kind(**arrays, patients=patients)

    def data(self, site: str, split: Split) -> Dataset:
        """Give a site's images, prepared for the task."""
        found = self.federation.site(site)
        parts = [found.train, found.val, found.test] if split == "all" else [getattr(found, split)]
        return self.task.prepare(concatenate(parts) if len(parts) > 1 else parts[0])

    def _predict(self, sitting: Sitting) -> None:
        jobs = [self._jobs[sitting.seed, plan] for plan in sitting.jury]
        # Personal parts, where a method has them, are the site's own; a site that never trained has none.
        models = [
            trained_model(job.folder, job.training.config, self.task, self.federation, sitting.site) for job in jobs
        ]
        found = predict(models, self.task, self.data(sitting.site, sitting.split))
        names = [field.name for field in fields(found) if field.name != "patients"]
        path = self._path(sitting)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, bytes(save({name: np.ascontiguousarray(getattr(found, name)) for name in names})))

    def _path(self, sitting: Sitting) -> Path:
        kind, _, fold = sitting.jury[0].partition("/")
        if len(sitting.jury) > 1:
            kind, fold = "juries", hashlib.sha256("\n".join(sitting.jury).encode()).hexdigest()[:32]
        name = f"{folder_name(sitting.site)}.{sitting.split}.safetensors"
        return self._folder / "predictions" / f"seed-{sitting.seed}" / kind / folder_name(fold) / name
