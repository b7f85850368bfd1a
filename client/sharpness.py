"""Sharpness-aware minimisation: the gradient that the optimizer sees is that of the worst place nearby.

Source: Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization", eqs. 2 and 3.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

LEAST = 1e-12
"""Of a norm that is divided by."""


@contextmanager
def climbed(parameters: Sequence[Tensor], radius: float) -> Iterator[None]:
    """While entered, parameters stand at w + radius · g / ‖g‖, g all their gradients as one vector; then at w, exactly.

    What has no gradient, or one of zero, stays where it is.
    """
    moved = [(each, each.grad) for each in parameters if each.grad is not None]
    kept = [each.detach().clone() for each, _ in moved]
    with torch.no_grad():
        norms = [gradient.norm() for _, gradient in moved]
        scale = radius / torch.stack(norms).norm().clamp_min(LEAST) if norms else 0.0
        for each, gradient in moved:
            each.add_(gradient * scale)
    try:
        yield
    finally:
        with torch.no_grad():
            for (each, _), before in zip(moved, kept, strict=True):
                each.copy_(before)
