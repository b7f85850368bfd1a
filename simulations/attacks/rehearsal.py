"""The suite on the phantom, without protection, under its claim, and with a mechanism that is broken on purpose.

`python -m simulations.attacks.rehearsal` prints the findings of docs/reference/attacks.md as JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.private.training import PrivateTraining, train_privately
from client.training import train
from common.attention.base import AttentionModel
from common.config import RunConfig, load_run_config
from common.data.base import Dataset, concatenate
from common.data.federation import open_federation
from common.models.build import build_model
from common.privacy.accountant import epsilon
from common.privacy.calibration import gaussian_noise_multiplier, noise_multiplier
from common.privacy.events import Gaussian, PoissonSampled, Repeated
from common.tasks.build import build_task
from simulations.attacks.canaries import audit, dirac
from simulations.attacks.claim import Claim
from simulations.attacks.private_sum import GaussianSum, PrivateSum, plain_sum
from simulations.attacks.suite import Effort, Release, Subject, attack_site
from simulations.findings import print_json
from simulations.workers import default_workers

SETTINGS = {
    "data.image-size": 32,
    "data.patients-per-site": 80,
    "model.name": "vit-tiny",
    "model.width": 8,
    "train.augment": False,
    "train.local-epochs": 20,
    "train.device": "cpu",
    "privacy.mechanism": "gaussian",
    "privacy.sampling-probability": 0.25,
}
DELTA = 1e-5
SIGNATURE_CLIP = 0.2
BROKEN = 10.0
"""The broken mechanism adds a tenth of the noise that it claims."""


@dataclass(frozen=True, slots=True)
class Protection:
    """The ε of a whole training, and of one release of a signature or a gradient; and what the noise is divided by."""

    training: float
    release: float
    noise_divided_by: float = 1.0


def subject(config: RunConfig, protection: Protection | None) -> Subject:
    """Give the patients of all sites of the phantom as if they were one site's, and how they are protected."""
    federation = open_federation(config.data)
    task = build_task(config.task, federation.classes, federation.mask_classes)
    data = task.prepare(concatenate([part for site in federation.sites for part in (site.train, site.val, site.test)]))

    def build(seed: int) -> AttentionModel:
        return build_model(config.model, federation.channels, task.outputs, federation.image_size, seed)

    if protection is None:
        raw = Release(plain_sum, Claim(np.inf, 0))

        def plainly(model: AttentionModel, patients: Dataset, seed: int) -> object:
            return train(model, task, patients, config.train, seed)

        return Subject(build, plainly, raw.claim, task, data, raw, raw)

    probability = config.privacy.sampling_probability
    steps = PrivateTraining(config.train, config.privacy, 1.0).steps
    noise = noise_multiplier(
        lambda sigma: [Repeated(PoissonSampled(probability, Gaussian(sigma)), steps)], protection.training, DELTA
    )
    claim = Claim(epsilon([Repeated(PoissonSampled(probability, Gaussian(noise)), steps)], DELTA), DELTA)
    of_release = gaussian_noise_multiplier(protection.release, DELTA) / protection.noise_divided_by

    def privately(model: AttentionModel, patients: Dataset, seed: int) -> object:
        settings = PrivateTraining(config.train, config.privacy, noise / protection.noise_divided_by)
        return train_privately(model, task, patients, settings)

    each = Claim(protection.release, DELTA)
    gradient = Release(GaussianSum(config.privacy.clip_norm, of_release), each)
    signature = Release(GaussianSum(SIGNATURE_CLIP, of_release), each)
    return Subject(build, privately, claim, task, data, gradient, signature)


STEPS, NOISE = 100, 20.0
SUMS: dict[str, tuple[PrivateSum, float]] = {
    "correct": (GaussianSum(1, NOISE), 5),
    "half the noise": (GaussianSum(1, NOISE / 2), 5),
    "no clipping": (GaussianSum(5, NOISE / 5), 5),
    "a tenth of the noise": (GaussianSum(1, NOISE / 10), 5),
    "clips at ten times the norm": (GaussianSum(10, NOISE / 10), 100),
    "no noise": (plain_sum, 1),
}
"""Sums that claim sensitivity 1 and noise 20, and the norm of the canaries' gradients."""
CASES = {"none": None, "private": Protection(3.0, 1.0), "broken": Protection(3.0, 1.0, BROKEN)}


def sums(seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """Audit each of SUMS over 100 steps with 1000 canaries."""
    claim = Claim(epsilon([Repeated(Gaussian(NOISE), STEPS)], DELTA), DELTA)
    return [
        {"case": name, "seed": seed, **audit(dirac(private_sum, STEPS, norm), 1000, claim, seed)[0].row()}
        for name, (private_sum, norm) in SUMS.items()
        for seed in seeds
    ]


def main() -> None:
    """Audit the sums, attack the phantom under each of CASES, and print the findings."""
    config = load_run_config(SETTINGS)
    found = {
        name: attack_site(subject(config, each), Effort(workers=default_workers()), seed=1)
        for name, each in CASES.items()
    }
    print_json(
        {"sums": sums(), "findings": [{"case": name, **each.row()} for name, of in found.items() for each in of]}
    )


if __name__ == "__main__":
    main()
