"""Sharpness-aware steps: the gradient is taken where the loss is worst nearby."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

TINY = 1e-12


@contextmanager
def worst_nearby(parameters: Sequence[nn.Parameter], radius: float) -> Iterator[None]:
    """Move parameters by `radius` along their gradient, and put them back to the bit on leaving.

    ε̂ = ρ g / ‖g‖, the norm over all parameters together; gradients are left for the caller to replace.

    Source: Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization".
    """
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.add_(gradient * (radius / (norm + TINY)))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
