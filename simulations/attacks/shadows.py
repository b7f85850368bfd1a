"""Shadow models: the audited training on random halves of the patients, as many times as the attacker affords."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.attention.base import AttentionModel
from common.attention.signature import measuring
from common.data.base import Dataset
from common.errors import ConfigError
from common.seeds import derive, generator
from simulations.attacks.membership import Bools, Floats, Shadows
from simulations.workers import Emit, Workers

Confidence = Callable[[Bools, int], Floats]
"""Trains on the patients marked in bool [P], with a seed, and gives the confidence for all, [P]."""
BATCH = 256
FOREVER = 1e6


def train_shadows(confidence: Confidence, patients: int, models: int, seed: int, workers: int = 0) -> Shadows:
    """Train `models` shadow models, each patient in exactly half of them, drawn independently of the others.

    With `workers` processes at a time; the result does not depend on how many.

    Raises:
        DataError: Fewer than four models.
    """
    places = generator(seed, "shadows").random((models, patients)).argsort(axis=0)
    members = places < models // 2

    def answer(request: bytes, emit: Emit) -> bytes:
        number = int(request)
        return confidence(members[number], derive(seed, "shadow", number)).astype(np.float64).tobytes()

    with Workers(workers, answer) as pool:
        answers = pool.run([str(number).encode() for number in range(models)], FOREVER)
    rows = []
    for each in answers:
        if not isinstance(each, bytes):
            raise each or TimeoutError
        rows.append(np.frombuffer(each, np.float64))
    return Shadows(np.stack(rows), members)


@dataclass(frozen=True, slots=True)
class SiteTraining:
    """A site's training, as an attacker with the site's settings repeats it.

    Args:
        build: From a seed to the model that training starts from.
        train: Trains in place: model, data of the chosen patients, seed.
        data: All patients, members or not, prepared for the task.
    """

    build: Callable[[int], AttentionModel]
    train: Callable[[AttentionModel, Dataset, int], object]
    data: Dataset

    def __call__(self, chosen: Bools, seed: int) -> Floats:
        """Train on the chosen patients, in the order of `patient_confidence`. bool [P] -> [P]."""
        return self.trained(self.build(seed), chosen, seed)

    def trained(self, model: AttentionModel, chosen: Bools, seed: int) -> Floats:
        """Train this model, which the caller keeps, on the chosen patients. bool [P] -> [P]."""
        names = np.unique(self.data.patients)
        self.train(model, self.data.subset(np.isin(self.data.patients, names[chosen])), seed)
        return patient_confidence(model, self.data)


def patient_confidence(model: AttentionModel, data: Dataset) -> Floats:
    """Give log(p / (1 − p)) of the probability p of the true label, mean over each patient's images.

    From logits directly, so that p near 1 loses no digits: z_y − log Σ_{k ≠ y} exp z_k, or ±z of a single logit.

    Shapes: -> [P], in the order of np.unique(data.patients).

    Raises:
        ConfigError: The data have no single label per image.

    Source: Carlini et al. 2022, eq. 3.
    """
    if data.labels is None or data.labels.ndim != 1:
        raise ConfigError(
            f"{data.name}: membership is told from the answer for the one true label, and there is none. Allowed are "
            f"binary and multiclass tasks; attack a model of such a task."
        )
    device = next(model.parameters()).device
    parts = []
    with measuring(model):
        for start in range(0, len(data), BATCH):
            batch = data.batch(np.arange(start, min(start + BATCH, len(data))), device)
            assert batch.labels is not None
            parts.append(margin(model(batch.images).double(), batch.labels.long()).cpu().numpy())
    _, owner = np.unique(data.patients, return_inverse=True)
    return np.asarray(np.bincount(owner, np.concatenate(parts)) / np.bincount(owner))


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the logit of the true label's probability. Shapes: logits [B, K], labels int64 [B] -> [B]."""
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * labels - 1)
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return true[:, 0] - others.logsumexp(1)
