"""Gradient inversion: the image of a patient from the gradient that he alone contributes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.attention.signature import evaluating
from common.data.base import Batch, Dataset
from common.errors import ConfigError, UnknownNameError
from common.metrics.bootstrap import interval
from common.seeds import generator
from common.tasks.base import Task
from simulations.attacks.claim import Claim
from simulations.attacks.closed_forms import (
    Gradients,
    image_of_first_linear,
    image_of_transformer,
    label_of_bias,
    last_bias,
)
from simulations.attacks.finding import Finding, Findings
from simulations.attacks.gradient_search import flat_gradient, learning, search
from simulations.attacks.intervals import share
from simulations.attacks.private_sum import PrivateSum

Attacker = Callable[[nn.Module, Task, Gradients, tuple[int, ...]], Tensor]
"""From what leaves the site to an image [C, H, W] in [-1, 1]; the model and the task are public."""
RESAMPLES = 1000
FLOOR = 1e-20


@dataclass(frozen=True, slots=True)
class Target:
    """Whose images are sought, and through which model.

    `data` is prepared for the task, of classification. The first image of each patient is a candidate; the first
    `victims` patients are attacked, one by one.
    """

    model: nn.Module
    task: Task
    data: Dataset
    victims: int = 8


def inversion(target: Target, name: str, private_sum: PrivateSum, claim: Claim) -> Findings:
    """Invert the gradient of one patient's image after another, each alone in the sum that is released.

    The worst case: one step of one patient, or the attacker knows all others and takes them away. Two findings: how
    near the images come (PSNR in dB; no ε bounds it), and how often the reconstruction lies nearer to the victim's
    image than to any other patient's. A guess is right with one over the number of patients, exactly, so this share
    can be held against the claim of the one release.

    Args:
        target: The model and the patients.
        name: In INVERSIONS.
        private_sum: What is released of a gradient: [1, D] -> [D].
        claim: What one such release keeps.

    Raises:
        UnknownNameError: No such inversion.
        ConfigError: The task is not classification, or the attack does not fit the model.
    """
    if name not in INVERSIONS:
        raise UnknownNameError("inversion", name, list(INVERSIONS))
    if target.task.dense or target.data.labels is None or target.data.labels.ndim != 1:
        raise ConfigError(
            "inversion reads the label from the head, and this task has no single one. Allowed are binary and "
            "multiclass; attack a model of such a task."
        )
    _, first = np.unique(target.data.patients, return_index=True)
    everyone = target.data.batch(first, next(target.model.parameters()).device)
    victims = min(target.victims, len(first))
    with evaluating(target.model):
        found = torch.stack([_reconstructed(target, everyone, i, name, private_sum) for i in range(victims)])
    near = psnr(found[:, None], everyone.images[None])
    hits = int((near.argmax(axis=1) == np.arange(victims)).sum())
    prior = psnr(everyone.images.mean(dim=0, keepdim=True), everyone.images)
    own = near[np.arange(victims), np.arange(victims)]
    drawn = generator(0, "inversion", name).integers(victims, size=(RESAMPLES, victims))
    details = {"patients": float(len(first)), "best": float(own.max()), "worst": float(own.min())}
    return (
        Finding(
            name=f"inversion {name}",
            measure="median PSNR in dB",
            success=float(np.median(own)),
            interval=interval(np.median(own[drawn], axis=1)),
            baseline=float(np.median(prior)),
            claimed_bound=math.inf,
            samples=victims,
            details=details,
        ),
        Finding(
            name=f"inversion {name}",
            measure="share of images told from all others",
            success=hits / victims,
            interval=share(hits, victims),
            baseline=1 / len(first),
            claimed_bound=claim.reach(1 / len(first)),
            samples=victims,
            details=details,
        ),
    )


def psnr(found: Tensor, truth: Tensor) -> NDArray[np.float64]:
    """Give 10 log₁₀(4 / mean squared difference) in dB over the last three axes; images lie in [-1, 1]."""
    error = (found.double().clamp(-1, 1) - truth.double()).square().mean(dim=(-3, -2, -1))
    return np.asarray((10 * torch.log10(4 / error.clamp_min(FLOOR))).cpu().numpy())


def _reconstructed(target: Target, everyone: Batch, victim: int, name: str, private_sum: PrivateSum) -> Tensor:
    labels = None if everyone.labels is None else everyone.labels[victim : victim + 1]
    alone = Batch(images=everyone.images[victim : victim + 1], labels=labels, masks=None)
    row = flat_gradient(target.model, target.task, alone).double().cpu().numpy()[None]
    sent = torch.from_numpy(private_sum(row)).to(alone.images)
    parameters = learning(target.model)
    parts = torch.split(sent, [parameter.numel() for _, parameter in parameters])
    gradients = {key: part.view_as(each) for (key, each), part in zip(parameters, parts, strict=True)}
    return INVERSIONS[name](target.model, target.task, gradients, tuple(alone.images.shape[1:]))


def _by_search(model: nn.Module, task: Task, gradients: Gradients, shape: tuple[int, ...]) -> Tensor:
    bias = gradients[last_bias(model)]
    return search(model, task, gradients, torch.tensor([label_of_bias(bias)], device=bias.device), shape)


INVERSIONS: dict[str, Attacker] = {
    "first-linear": lambda model, task, gradients, shape: image_of_first_linear(model, gradients, shape),
    "transformer": lambda model, task, gradients, shape: image_of_transformer(model, gradients, shape),
    "search": _by_search,
}
"""Name to attacker; `first-linear` and `transformer` are closed forms."""
