"""Adversary: attention that cannot be told from draws of the prior. The critic never leaves the site."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from client.guidance.base import AgainstPrior, Known, Seen
from common.seeds import derive, torch_generator

HIDDEN, RATE = 64, 1e-3


class Adversary:
    """L = −ramp · BCE(D(s), 0): the model is paid for signatures that D takes for draws of the public law N(μ, diag v).

    D (d − 64 − 1, spectral norm) learns at each step on the same images, cut off from the model, with as many draws of
    the law, labels 0 and 1; it begins anew each round. The ramp 2 / (1 + e^(−10 p)) − 1 follows the rounds' progress p.
    Whitened signatures go in, so that no entry is too small to be seen.

    Source: Ganin et al. 2016, "Domain-Adversarial Training", eq. 14 (ramp); a reference law in place of the other
    hospitals' features as in FedADG (Zhang et al. 2021, arXiv 2111.10487).
    """

    needs: ClassVar[tuple[str, ...]] = ("prior",)

    def __init__(self, known: Known) -> None:
        self.standardise = AgainstPrior(known)
        self.ramp = 2 / (1 + math.exp(-10 * known.progress)) - 1
        self.random = torch_generator(known.seed, "reference")
        device = next(known.model.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(known.seed, "critic"))
            self.critic = critic(len(self.standardise.told)).to(device)
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=RATE)

    def __call__(self, seen: Seen) -> Tensor:
        """Teach the critic one step, then give the loss of each image, [B]."""
        white = self.standardise(seen.rows)
        if not white.shape[1]:
            return seen.rows.new_zeros(len(seen.rows))
        self._teach(white.detach())
        self.critic.eval().requires_grad_(False)  # in eval mode the norms' power iteration rests
        answer = self.critic(white)[:, 0]
        return -self.ramp * F.binary_cross_entropy_with_logits(answer, torch.zeros_like(answer), reduction="none")

    def _teach(self, white: Tensor) -> None:
        self.critic.train().requires_grad_(True)
        drawn = torch.randn(white.shape, generator=self.random).to(white)
        answers = self.critic(torch.cat([white, drawn]))[:, 0]
        truth = torch.cat([torch.zeros(len(white)), torch.ones(len(drawn))]).to(answers)
        self.optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(answers, truth).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def critic(entries: int) -> nn.Sequential:
    """Build D: two linear layers whose largest singular value is one, and a leaky ReLU between."""
    return nn.Sequential(
        spectral_norm(nn.Linear(max(1, entries), HIDDEN)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(HIDDEN, 1))
    )
