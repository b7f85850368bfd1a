"""What each patient counts in a sum, once all norms are known."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Factors:
    """The clip factor of each patient, [P], and who counts nothing, [P]; `spoilt` is None where everybody counts."""

    each: Tensor
    spoilt: Tensor | None

    @classmethod
    def of(cls, factors: Tensor) -> "Factors":
        """Find who counts nothing."""
        spoilt = factors == 0
        return cls(factors, spoilt if bool(spoilt.any()) else None)

    def without(self, rows: Tensor) -> Tensor:
        """Put zeros where a patient does not count, for zero times infinity is not zero. [P, …] -> [P, …]."""
        if self.spoilt is None:
            return rows
        return rows.masked_fill(self.spoilt.view(-1, *[1] * (rows.ndim - 1)), 0)

    def weigh(self, rows: Tensor) -> Tensor:
        """Add rows up by their factors. [P, …] -> […]."""
        return torch.mv(self.without(rows).flatten(1).T, self.each.to(rows.dtype)).view(rows.shape[1:])

    def scale(self, rows: Tensor) -> Tensor:
        """Multiply rows by their factors. [P, …] -> [P, …]."""
        return self.without(rows) * self.each.to(rows.dtype).view(-1, *[1] * (rows.ndim - 1))
