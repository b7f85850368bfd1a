"""What FASA descends beside the distance itself: an anchor, a guard, and what escalation adds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from client.adaptation.answers import entropy


def kl(left: Tensor, right: Tensor) -> Tensor:
    """KL(left ‖ right) of two probability vectors, finite where one has zeros. Shapes: [K] twice -> []."""
    left, right = left.clamp_min(1e-8), right.clamp_min(1e-8)
    return (left * (left / right).log()).sum()


def anchor(parameters: Sequence[Tensor], shipped: Sequence[Tensor]) -> Tensor:
    """Σ_j (φ_j − φ_0j)²: the Fisher information is taken as 1 everywhere."""
    return torch.stack([(now - then).square().sum() for now, then in zip(parameters, shipped, strict=True)]).sum()


def guard(log_p: Tensor, expected: Tensor, slack: float) -> Tensor:
    """max(0, KL(mean p ‖ Cᵀπ̂) − slack): answers may not drift from what the label mix explains.

    Shapes: log_p [B, K], expected [K] -> [].
    """
    return (kl(log_p.exp().mean(0), expected) - slack).clamp_min(0)


def informed(log_p: Tensor, mix: Tensor) -> Tensor:
    """Mean H(p) + KL(mean p ‖ π̂): sure of each image, and of as many of each class as there are thought to be.

    With a uniform mix it is SHOT's information maximisation, up to a constant.

    Shapes: log_p [B, K], mix [K] -> [].
    Source: Liang et al. 2020, "Do We Really Need to Access the Source Data?", eq. 3; the prior in it is ours.
    """
    return entropy(log_p).mean() + kl(log_p.exp().mean(0), mix)
