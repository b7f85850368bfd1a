"""A teacher: a slow running mean of a student's parameters."""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from client.adaptation.answers import log_probabilities

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """Copy the student as it is now; nothing of the copy is trained."""
    return deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """θ_teacher ← decay · θ_teacher + (1 − decay) · θ_student, parameters only."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(decay).add_(new, alpha=1 - decay)


def disagreement(student: Tensor, taught: Tensor) -> Tensor:
    """Cross-entropy −Σ_k q_k ln p_k of the student's logits with the teacher's probabilities, [B, K, *S] -> [B, *S].

    Shapes: student logits [B, outputs, *S]; taught probabilities of all classes [B, K, *S].
    """
    return -(taught * log_probabilities(student)).sum(1)
