"""Local training: one round at one site, deterministic in (seed, site, round)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.extras import PLAIN, Extras
from client.sharpness import climbed
from common.attention.base import AttentionModel
from common.config import TrainSection
from common.data.augment import augmented
from common.data.base import Batch, Dataset
from common.device import precision
from common.seeds import derive, generator, torch_generator
from common.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Trained:
    """What a round of training tells: images per epoch, the summed loss of the last epoch, and steps of all epochs."""

    images: int
    loss_sum: float
    steps: int = 0


def train(
    model: AttentionModel, task: Task, data: Dataset, settings: TrainSection, seed: int, extras: Extras = PLAIN
) -> Trained:
    """Train `model` in place on all of `data`, `settings.local_epochs` times.

    Args:
        model: On the device to train on.
        task: Gives the loss.
        data: Prepared for the task.
        settings: Optimizer, batches, augmentation.
        seed: For this site and this round; shuffles and augmentation follow from it.
        extras: What is added to the task's loss.
    """
    device = next(model.parameters()).device
    optimizer = build_optimizer(model, settings)
    for group in extras.groups():
        optimizer.add_param_group(group)
    weights = class_weights(task, data, settings, device)
    model.train()
    # Dropout, where a model has it, draws from torch's own state: fix it for this call and put it back after.
    devices = [device] if device.type == "cuda" else []
    total, steps = torch.zeros((), device=device), 0
    radius = max(settings.sam, extras.radius)

    def descend(batch: Batch) -> Tensor:
        """Put the gradient of the whole objective into the parameters and give the task's loss."""
        with precision(device, settings.amp):
            logits = model(batch.images)
        loss = task.loss(logits, batch, weights)
        extra = added(batch)
        optimizer.zero_grad(set_to_none=True)
        (loss if extra is None else loss + extra).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    with torch.random.fork_rng(devices=devices), extras.attached(model) as added:
        torch.manual_seed(derive(seed, "dropout"))
        for epoch in range(settings.local_epochs):
            total = torch.zeros((), device=device)
            for batch, count in _batches(data, settings, seed, epoch, device):
                loss = descend(batch)
                if radius:
                    with climbed(list(model.parameters()), radius):
                        descend(batch)
                extras.correct(model)
                optimizer.step()
                total += loss * count
                steps += 1
    return Trained(images=len(data), loss_sum=float(total), steps=steps)


def build_optimizer(model: AttentionModel, settings: TrainSection) -> torch.optim.Optimizer:
    """Build the local optimizer of what may be trained; afresh each round, so nothing of it must be kept or sent."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        parameters, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _batches(
    data: Dataset, settings: TrainSection, seed: int, epoch: int, device: torch.device
) -> Iterator[tuple[Batch, int]]:
    order: NDArray[np.int64] = generator(seed, "shuffle", epoch).permutation(len(data))
    random = torch_generator(seed, "augment", epoch)
    for start in range(0, len(order), settings.batch_size):
        index = order[start : start + settings.batch_size]
        batch = data.batch(index, device)
        yield augmented(batch, settings, random), len(index)


def class_weights(task: Task, data: Dataset, settings: TrainSection, device: torch.device) -> Tensor | None:
    """Give the weights of the classes in the loss, or None where all count alike."""
    if settings.class_weights == "none":
        return None
    return torch.from_numpy(task.class_weights(data)).to(device)
