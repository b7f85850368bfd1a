"""An experiment with its data open and its parts checked: what fails, fails here, before anything is written."""

from pathlib import Path

from common.config_checks import check_items
from common.data.federation import Federation, open_federation
from common.device import choose_device
from common.errors import ConfigError
from common.models.build import build_model
from common.tasks.base import Task
from common.tasks.build import build_task
from server.strategies import STRATEGIES
from simulations.engine import Training
from simulations.experiment import Experiment
from simulations.protocols import PROTOCOLS, Comparison, Plan
from simulations.trainer import Job, training_folder


class Study:
    """Who trains, who is held out, which trainings the protocols need.

    Raises:
        ConfigError, DataError: Settings, data, task and model that do not go together.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.workers = None if experiment.study.workers < 0 else experiment.study.workers
        self.comparisons: list[Comparison] = [PROTOCOLS.load(name)() for name in experiment.study.protocols]
        self.federation: Federation = open_federation(experiment.config.data)
        check_items(experiment.config, self.federation.image_size)
        self.task: Task = build_task(experiment.config.task, self.federation.classes, self.federation.mask_classes)
        self.sources = tuple(site.name for site in self.federation.sites if site.role == "source")
        self.held_out = tuple(site.name for site in self.federation.sites if site.role == "held-out")
        self._check_parts()
        self._check_cohort()
        self.model = build_model(
            experiment.config.model,
            self.federation.channels,
            self.task.outputs,
            self.federation.image_size,
            0,
            dense=self.task.dense,
        )

    def plans(self) -> list[Plan]:
        """Give every training that the protocols need, once."""
        return list(
            {plan.name: plan for comparison in self.comparisons for plan in comparison.plans(self.sources)}.values()
        )

    def jobs(self, folder: Path) -> list[Job]:
        """Give every training, once per seed, with its place in the run folder."""
        return [self._job(folder, seed, plan) for seed in self.experiment.study.seeds for plan in self.plans()]

    def _job(self, folder: Path, seed: int, plan: Plan) -> Job:
        # Held-out sites watch a federated training: they are judged each round and never train.
        watchers = tuple((name,) for name in self.held_out) if len(plan.groups) > 1 else ()
        config = self.experiment.seeded(seed)
        out = training_folder(folder, seed, plan.name)
        quorum = min(config.cohort.quorum, len(plan.groups))
        config = config.replace({"out": str(out), "cohort.quorum": quorum})
        return Job(seed, plan, Training(plan.name, config, (*plan.groups, *watchers)))

    def _check_parts(self) -> None:
        config = self.experiment.config
        STRATEGIES.load(config.strategy.name)
        choose_device(config.train.device)
        for site in self.federation.sites:
            for data in (site.train, site.val, site.test):
                self.task.prepare(data)

    def _check_cohort(self) -> None:
        quorum, sources = self.experiment.config.cohort.quorum, len(self.sources)
        if quorum > sources:
            raise ConfigError(
                f"setting 'cohort.quorum' is {quorum} and {sources} sites train ({', '.join(self.sources)}). "
                f"Allowed is at most their number; lower it, or hold out fewer sites."
            )
        if not self.plans():
            raise ConfigError(
                f"setting 'protocols' is {', '.join(self.experiment.study.protocols)}, which with one source site "
                f"({self.sources[0]}) trains nothing. Add 'federated', or hold out fewer sites."
            )
