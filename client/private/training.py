"""Local training under patient-level differential privacy (DP-SGD).

A step draws patients, clips the gradient of each, adds Gaussian noise to the sum and divides by a public number. The
optimizer only sees that; whatever it does with it costs no more.

Source: Abadi et al. 2016, algorithm 1, with patients for examples and Poisson sampling (Mironov et al. 2019).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from client.extras import proximal
from client.private import ENGINES
from client.private.base import Clip, image_losses, learning
from client.private.checks import nothing_kept, refuse_mixing
from client.private.sampling import Patients, micro_batches
from client.training import Trained, build_optimizer
from common.attention.base import AttentionModel
from common.config import TrainSection
from common.data.augment import augmented
from common.data.base import Dataset
from common.errors import ConfigError
from common.privacy.plan import steps_of
from common.protection import PrivacySection
from common.randomness import SecureRandom
from common.tasks.base import Task

Gradient = list[Tensor]


@dataclass(frozen=True, slots=True)
class PrivateTraining:
    """How a site trains privately: the run's settings, the noise that was found for them, and who draws.

    `mu` weighs the proximal term, which sees no patient and so needs no noise.
    """

    train: TrainSection
    privacy: PrivacySection
    noise_multiplier: float
    mu: float = 0.0
    random: SecureRandom = field(default_factory=SecureRandom)

    @property
    def clip(self) -> Clip:
        """How a patient's gradient is clipped."""
        return Clip(self.privacy.clip_norm, self.privacy.clipping)

    @property
    def steps(self) -> int:
        """Steps of a round: so many that a patient is expected to be seen `local-epochs` times."""
        return steps_of(self.train.local_epochs, self.privacy.sampling_probability)

    @property
    def expected(self) -> float:
        """Patients that a step expects at the smallest site that may take part, at least one; sums are divided by it.

        Not by what this site expects: the noise of an update would then tell how many patients there are, to a part in
        thousands, and with one patient more or less would have another law than the accountant's.
        """
        return max(self.privacy.sampling_probability * self.privacy.fewest_patients, 1.0)


def train_privately(model: AttentionModel, task: Task, data: Dataset, settings: PrivateTraining) -> Trained:
    """Train `model` in place for one round. The loss is not told: it would be one more release.

    Args:
        model: On the device to train on.
        task: Gives the loss of single images.
        data: Prepared for the task; `data.patients` are the units.
        settings: See `PrivateTraining`. Nothing follows from the run's seed.

    Raises:
        UnsupportedModelError: A layer mixes patients, or keeps something of them without noise.
    """
    refuse_mixing(model)
    patients = Patients(data.patients, settings.privacy.images_per_patient)
    optimizer = build_optimizer(model, settings.train)
    anchor = [each.detach().clone() for each in model.parameters()] if settings.mu else []
    deviation = settings.noise_multiplier * settings.privacy.clip_norm
    model.train()
    for _ in range(settings.steps):
        total, _ = clipped_sum(model, task, data, settings, patients)
        optimizer.zero_grad(set_to_none=True)
        for parameter, gradient in zip(learning(model).values(), total, strict=True):
            parameter.grad = noised(gradient, deviation, settings.random).div_(settings.expected)
        if anchor:
            proximal(model, anchor, settings.mu).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Trained(images=len(data), loss_sum=0.0)


def clipped_sum(
    model: AttentionModel, task: Task, data: Dataset, settings: PrivateTraining, patients: Patients | None = None
) -> tuple[Gradient, int]:
    """Give Σ of the clipped gradients of a Poisson sample of patients, without noise, and how many they are.

    The sum of no patient is zero; noise is added to it all the same. Augmentation and dropout come from the
    cryptographic source as well: drawn from a seed that others know, image after image, they would change for
    everybody who stands behind a patient in the batch, and one patient would move the sum by more than the clip norm.

    Raises:
        UnsupportedModelError: As `train_privately`.
    """
    patients = patients or Patients(data.patients, settings.privacy.images_per_patient)
    device = next(model.parameters()).device
    drawn = patients.sample(settings.privacy.sampling_probability, settings.random)
    total: Gradient = []
    losses, engine = image_losses(task), ENGINES.load(settings.privacy.engine)
    with nothing_kept(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.random.seed())
        for part in micro_batches(drawn, settings.privacy.micro_batch):
            batch = augmented(data.batch(part.images, device), settings.train, torch.default_generator)
            index = torch.from_numpy(part.patients).to(device)
            found = engine(model, losses, batch, index, settings.clip)
            total = added(total, found.total)
        if not len(drawn):  # an engine that refuses this model does so whoever was drawn, or it would tell
            first = data.batch(np.zeros(1, np.int64), device)
            engine(model, losses, first, torch.zeros(1, dtype=torch.int64, device=device), settings.clip)
    return total or [torch.zeros_like(parameter) for parameter in learning(model).values()], len(drawn)


def added(total: Gradient, more: Gradient) -> Gradient:
    """Add `more` to `total` in place; what is empty has nothing yet."""
    if total and more:
        torch._foreach_add_(total, more)
    return total or more


def noised(gradient: Tensor, deviation: float, random: SecureRandom) -> Tensor:
    """Add normal noise of standard deviation `deviation` to each entry, in place where it can be. Same shape."""
    host = gradient.to("cpu", torch.promote_types(gradient.dtype, torch.float32)).contiguous()
    random.add_normal(host.view(-1).numpy(), deviation)
    return host.to(gradient)


def refuse_unprivate(guided: bool) -> None:
    """Refuse what training adds and clipping does not cover.

    Raises:
        ConfigError: Guidance of attention is on.
    """
    if guided:
        raise ConfigError(
            "a weight of [guidance] is above 0 and 'privacy.mechanism' is not 'none': terms of guidance are not "
            "clipped per patient yet. Set the weights to 0."
        )
