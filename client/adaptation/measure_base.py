"""What a measure of a source site sees and promises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from client.adaptation.source import Source
from common.attention.base import AttentionModel

Found = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A batch as a measure sees it.

    Shapes: images [B, C, H, W]; labels int64 [B] or [B, H, W] (several findings: [B, L]); features [B, D, *S];
    logits [B, K, *S]; patients [B].
    """

    images: Tensor
    labels: Tensor
    features: Tensor
    logits: Tensor
    patients: NDArray[np.str_]


class Measure(Protocol):
    """Contract: fed batch by batch, gives sums; `read` turns added sums into a field of `Source`."""

    after: ClassVar[tuple[str, ...]]
    """Fields that must be known before."""

    def __init__(self, model: AttentionModel, known: Source) -> None: ...

    def add(self, seen: Seen) -> None:
        """Add a batch."""
        ...

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give the sums, float64; none where the model has nothing of the kind, and the field then stays absent."""
        ...

    @staticmethod
    def read(sums: Found) -> object:
        """Make the field."""
        ...
