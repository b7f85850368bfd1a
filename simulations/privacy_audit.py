"""A finished run attacked: training and releases rebuilt on its own data, each attack beside what the run claims."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.private.training import PrivateTraining, train_privately
from client.training import train
from common.attention.base import AttentionModel
from common.config import RunConfig, Scalar
from common.data.base import Dataset, concatenate
from common.data.federation import Federation, open_federation
from common.items import need_images
from common.models.build import build_model
from common.privacy.accountant import cost
from common.privacy.events import Event, Gaussian, PoissonSampled, Repeated
from common.privacy.plan import Plan, measured_rounds, steps_of
from common.privacy.signature import sensitivity
from common.seeds import generator
from common.tasks.base import Task
from common.tasks.build import build_task
from simulations.attacks.claim import Claim
from simulations.attacks.finding import Findings
from simulations.attacks.private_sum import GaussianSum, plain_sum
from simulations.attacks.suite import Effort, Release, Subject, attack_site
from simulations.run_folder import read_settings

UNPROTECTED = Claim(np.inf, 0.0)


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit found: of which run, under which protection and claim, on how many patients."""

    run: str
    protection: str
    claim: Claim
    noise_multiplier: float
    patients: int
    findings: Findings


def audit_run(run: Path, effort: Effort, patients: int, seed: int, broken: float = 1.0) -> Audited:
    """Attack a run.

    The training is rebuilt with the run's settings, for as many steps as the run takes, on patients of its source sites
    as if they were one site's: what is attacked is the mechanism and its claim, not one stored file.

    Args:
        run: Run folder.
        effort: How hard the attacks try.
        patients: At most so many patients.
        seed: Chooses patients, members and shadow models.
        broken: Divides the noise without telling the accountant: more than 1 must be caught.

    Raises:
        RunFolderError: The folder is no run folder of this version.
        ConfigError: A run of bags.
    """
    config = read_settings(run).config
    found, noise, claim = _subject(config, patients, seed, broken)
    used = len(set(found.data.patients.tolist()))
    return Audited(run.resolve().name, config.protection, claim, noise, used, attack_site(found, effort, seed))


def _subject(config: RunConfig, patients: int, seed: int, broken: float) -> tuple[Subject, float, Claim]:
    federation = open_federation(config.data)
    need_images("an audit by attacks", federation.image_size)
    task = build_task(config.task, federation.classes, federation.mask_classes)
    data = _some(federation, task, patients, seed)

    def build(seed: int) -> AttentionModel:
        channels, size = federation.channels, federation.image_size
        return build_model(config.model, channels, task.outputs, size, seed, dense=task.dense)

    if not config.privacy.on:
        return _unprotected(config, task, data, build), 0.0, UNPROTECTED
    privacy = config.privacy
    noise, steps = continuous_noise(config), _steps(config)
    epochs = max(1, round(steps * privacy.sampling_probability))
    section = config.train.model_copy(update={"augment": False, "local_epochs": epochs})
    settings = PrivateTraining(section, privacy, noise / broken)

    def privately(model: AttentionModel, data: Dataset, seed: int) -> object:
        return train_privately(model, task, data, settings)

    claim = _claim(config, Repeated(PoissonSampled(privacy.sampling_probability, Gaussian(noise)), settings.steps))
    gradient = Release(GaussianSum(privacy.clip_norm, noise / broken), _claim(config, Gaussian(noise)))
    # Whoever has all releases of a signature may average them: less noise, and the price of all.
    releases, z = len(measured_rounds(config)) + 1, privacy.signature_noise_multiplier
    averaged = GaussianSum(sensitivity(privacy.signature_clip), z / broken / releases**0.5)
    signature = Release(averaged, _claim(config, Repeated(Gaussian(z), releases)))
    return Subject(build, privately, claim, task, data, gradient, signature), noise, claim


def continuous_noise(config: RunConfig) -> float:
    """Give the run's noise multiplier; noise in shares is taken as the normal noise that it approaches."""
    placement = "site" if config.privacy.placement == "site" else "central"
    changes: dict[str, Scalar] = {
        "privacy.mechanism": "gaussian",
        "privacy.placement": placement,
        "secure-aggregation.enabled": False,
    }
    return Plan(config.replace(changes), "audit").noise_multiplier


def _unprotected(config: RunConfig, task: Task, data: Dataset, build: Callable[[int], AttentionModel]) -> Subject:
    epochs = config.train.local_epochs * config.rounds
    section = config.train.model_copy(update={"augment": False, "local_epochs": epochs})
    raw = Release(plain_sum, UNPROTECTED)

    def plainly(model: AttentionModel, data: Dataset, seed: int) -> object:
        return train(model, task, data, section, seed)

    return Subject(build, plainly, UNPROTECTED, task, data, raw, raw)


def _steps(config: RunConfig) -> int:
    privacy = config.privacy
    each = steps_of(config.train.local_epochs, privacy.sampling_probability) if privacy.placement == "site" else 1
    return config.rounds * each


def _claim(config: RunConfig, event: Event) -> Claim:
    found = cost([event], config.privacy.delta)
    return Claim(found.epsilon, found.delta)


def _some(federation: Federation, task: Task, patients: int, seed: int) -> Dataset:
    """Give all splits of the source sites' data, of so many patients; names are told apart by site."""
    parts = [
        replace(part, patients=np.array([f"{site.name}/{each}" for each in part.patients.tolist()], dtype=str))
        for site in federation.sites
        if site.role == "source"
        for part in (site.train, site.val, site.test)
    ]
    data = task.prepare(concatenate(parts))
    names = np.unique(data.patients)
    chosen = generator(seed, "audited").permutation(len(names))[:patients]
    return data.subset(np.isin(data.patients, names[chosen]))
