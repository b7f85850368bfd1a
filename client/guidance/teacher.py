"""Teacher consistency: on the same image, look where the global model looks."""

from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor

from client.guidance.base import Known, Seen
from common.attention.base import AttentionSite
from common.attention.checks import GATES
from common.attention.recorder import Recorder

LEAST = 1e-6


class Teacher:
    """Mean over the sites of KL(α(x; global) ‖ α(x; local)): rows of softmax maps, and of a Bernoulli for gates.

    The global model of the round's start is frozen and sees the same augmented images; one more forward pass a step.

    Source: closest is FACL (arXiv 2302.06089), which keeps local attention near the server's.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, known: Known) -> None:
        self.model = deepcopy(known.model).eval().requires_grad_(False)

    def __call__(self, seen: Seen) -> Tensor:
        """Give the mean divergence per image, [B]."""
        with torch.no_grad(), Recorder(self.model) as recorder:
            self.model(seen.batch.images)
            taught = recorder.take()
        return torch.stack([divergence(site, taught[site.name], seen.maps[site.name]) for site in seen.sites]).mean(0)


def divergence(site: AttentionSite, wanted: Tensor, found: Tensor) -> Tensor:
    """Kullback-Leibler divergence of one site's maps, mean over rows or gates. Shapes: [B, …] twice -> [B], ≥ 0."""
    p, q = wanted.float().clamp(0, 1), found.float().clamp(0, 1)
    if site.kind in GATES:
        each = relative(p, q) + relative(1 - p, 1 - q)
        return each.flatten(1).mean(1)
    rows = relative(p, q).sum(1 if site.kind == "branch" else -1)
    return rows.reshape(len(rows), -1).mean(1)  # a bag has one row alone


def relative(p: Tensor, q: Tensor) -> Tensor:
    """p log(p / q) of each entry; both are kept from zero by 1e-6."""
    return p * (p.clamp_min(LEAST).log() - q.clamp_min(LEAST).log())
