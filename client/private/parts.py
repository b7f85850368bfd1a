"""One layer's share of the patients' gradients: its squared norms, and its sum once the factors are known."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.private.by_patient import rows_of_patients
from client.private.factors import Factors
from client.private.ghost import ghost
from client.private.rules import Rows, rows_of


@dataclass(frozen=True, slots=True)
class Part:
    """Squared norms of a layer's gradients, [P], and how to add the gradients up."""

    squares: Tensor
    weighted: Callable[[Factors], Rows]


def part(layer: nn.Module, given: Tensor, gradient: Tensor, patients: Tensor | None, count: int) -> Part:
    """Take one layer apart.

    Args:
        layer: It maps each image by itself.
        given: What went in, [B, …].
        gradient: Of what came out, [B, …].
        patients: Which patient each image is of, [B]; None where image i is of patient i.
        count: Patients.
    """
    if patients is None:
        found = ghost(layer, given, gradient)
        if found is not None:
            return Part(*found)
        rows = rows_of(layer, given, gradient)
    else:
        rows = rows_of_patients(layer, given, gradient, patients, count)
    squares = torch.stack([_squares(row) for row in rows.values()]).sum(0)
    return Part(squares, lambda factors: {name: factors.weigh(row) for name, row in rows.items()})


def _squares(rows: Tensor) -> Tensor:
    """Σ of squares of each row, in one pass and without a copy. [P, …] -> [P]."""
    norms: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1)
    return norms.square()
