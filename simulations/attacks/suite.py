"""All attacks on one site: its training and its releases, each against what it claims."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.attention.base import AttentionModel
from common.data.base import Dataset
from common.models.vit import VisionTransformer
from common.seeds import derive, generator
from common.tasks.base import Task
from simulations.attacks.attention_map import (
    Seen,
    attention_map,
    map_rows,
    seen_alone,
    seen_pooled,
    signature_rows,
    with_lesion,
)
from simulations.attacks.canaries import audit
from simulations.attacks.claim import Claim
from simulations.attacks.finding import Findings
from simulations.attacks.inversion import Target, inversion
from simulations.attacks.membership import membership
from simulations.attacks.planted import Planted
from simulations.attacks.private_sum import PrivateSum
from simulations.attacks.shadows import SiteTraining, train_shadows
from simulations.attacks.signature_membership import patient_rows, signature_membership


@dataclass(frozen=True, slots=True)
class Release:
    """A release of sums over patients, and what one of them claims."""

    private_sum: PrivateSum
    claim: Claim


@dataclass(frozen=True, slots=True)
class Subject:
    """What is attacked.

    Args:
        build: From a seed to the model that training starts from.
        train: The site's training, in place and without augmentation: model, patients' data, seed.
        claim: Of one whole such training.
        task: Of classification.
        data: Patients of the kind that the site has, prepared for the task; the attacks choose who takes part.
        gradient: How the gradient of one step leaves the training.
        signature: How a signature leaves the site.
    """

    build: Callable[[int], AttentionModel]
    train: Callable[[AttentionModel, Dataset, int], object]
    claim: Claim
    task: Task
    data: Dataset
    gradient: Release
    signature: Release


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard the attacks try: the defaults take some minutes on two cores."""

    canaries: int = 1000
    shadows: int = 16
    cohorts: tuple[int, ...] = (10, 50, 200)
    draws: int = 40
    victims: int = 8
    pooled: int = 50
    workers: int = 0


def attack_site(subject: Subject, effort: Effort, seed: int) -> Findings:
    """Run every attack of the table on one site.

    The model that signatures and maps are read from is the target of the membership attack, trained on half of the
    patients; lesions are sought only where there are masks.
    """
    names = np.unique(subject.data.patients)
    members = generator(seed, "members").random(len(names)) < 0.5
    model = subject.build(derive(seed, "target"))
    site = SiteTraining(subject.build, subject.train, subject.data)
    confidence = site.trained(model, members, derive(seed, "target"))
    shadows = train_shadows(site, len(names), effort.shadows, seed, effort.workers)
    places = int(np.prod(subject.data.images.shape[2:]))
    planted = Planted(lambda: subject.build(seed), lambda net, data: subject.train(net, data, seed), subject.data)
    return (
        *audit(planted, min(effort.canaries, places), subject.claim, seed),
        *membership(confidence, members, shadows, subject.claim, seed),
        *_signatures(subject, model, effort, seed),
        *_inversions(subject, model, effort),
        *(() if subject.data.masks is None else _locations(subject, model, effort, seed)),
    )


def _signatures(subject: Subject, model: AttentionModel, effort: Effort, seed: int) -> Findings:
    rows = patient_rows(model, subject.data)[1]
    release = subject.signature
    return signature_membership(rows, release.private_sum, release.claim, seed, effort.cohorts, effort.draws)


def _inversions(subject: Subject, model: AttentionModel, effort: Effort) -> Findings:
    target = Target(model, subject.task, subject.data, effort.victims)
    fitting = ["transformer"] if isinstance(model, VisionTransformer) else []
    release = subject.gradient
    return tuple(
        each for name in [*fitting, "search"] for each in inversion(target, name, release.private_sum, release.claim)
    )


def _locations(subject: Subject, model: AttentionModel, effort: Effort, seed: int) -> Findings:
    """From one patient's map, which never leaves a site; from his signature, all others known; and from pooled ones."""
    shown = with_lesion(subject.data)
    mine = generator(seed, "known").random(len(shown)) < 0.6
    masks = np.asarray(shown.masks) > 0
    release, sites = subject.signature, len(map_rows(model, shown)[0]) // 196

    def attack(name: str, rows: np.ndarray, claim: Claim, sites: int = 0) -> Findings:
        known, victims = (Seen(rows[side], masks[side], sites) for side in (mine, ~mine))
        return attention_map(name, known, victims, claim)

    rows = signature_rows(model, shown)
    rows = rows - rows[mine].mean(axis=0)
    pooled = seen_pooled(rows, effort.pooled, release.private_sum, seed)
    return (
        *attack("one map", map_rows(model, shown), Claim(float("inf"), 0), sites),
        *attack("one signature, others known", seen_alone(rows, release.private_sum), release.claim),
        *attack(f"signature of {effort.pooled}", pooled, release.claim),
    )
