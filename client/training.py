"""Local training: one round at one site, deterministic in (seed, site, round)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.extras import PLAIN, Extras
from common.attention.base import AttentionModel
from common.config import TrainSection
from common.data.augment import augment
from common.data.base import Batch, Dataset
from common.device import precision
from common.seeds import derive, generator, torch_generator
from common.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Trained:
    """What a round of training tells: images per epoch and the summed loss of the last epoch."""

    images: int
    loss_sum: float


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
    weights = _class_weights(task, data, settings, device)
    model.train()
    # Dropout, where a model has it, draws from torch's own state: fix it for this call and put it back after.
    devices = [device] if device.type == "cuda" else []
    total = torch.zeros((), device=device)
    with torch.random.fork_rng(devices=devices), extras.attached(model) as added:
        torch.manual_seed(derive(seed, "dropout"))
        for epoch in range(settings.local_epochs):
            total = torch.zeros((), device=device)
            for batch, count in _batches(data, settings, seed, epoch, device):
                with precision(device, settings.amp):
                    logits = model(batch.images)
                loss = task.loss(logits, batch, weights)
                extra = added(batch)
                objective = loss if extra is None else loss + extra
                optimizer.zero_grad(set_to_none=True)
                objective.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.detach() * count
    return Trained(images=len(data), loss_sum=float(total))


def build_optimizer(model: AttentionModel, settings: TrainSection) -> torch.optim.Optimizer:
    """Build the local optimizer; it starts afresh each round, so nothing of it must be kept or sent."""
    parameters = list(model.parameters())
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
        yield (augment(batch, random) if settings.augment else batch), len(index)


def _class_weights(task: Task, data: Dataset, settings: TrainSection, device: torch.device) -> Tensor | None:
    if settings.class_weights == "none":
        return None
    return torch.from_numpy(task.class_weights(data)).to(device)
