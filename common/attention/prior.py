"""The prior: what the federation knows of where the model looks, pooled from the sites' signatures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.attention.signature import Signature
from common.errors import AggregationError, ProtocolError


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Mean and variance over patients of their mean signatures; every patient weighs the same, whatever the site.

    `variance` divides by the number of patients (not n - 1).

    Shapes: mean, variance float64 [d].
    """

    schema: str
    patients: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def __post_init__(self) -> None:
        mean, variance = np.asarray(self.mean), np.asarray(self.variance)
        if mean.ndim != 1 or mean.shape != variance.shape or self.patients < 1:
            raise ProtocolError(
                f"a prior has {self.patients} patients, a mean of shape {mean.shape} and a variance of shape "
                f"{variance.shape}. Allowed are 1 or more patients and two vectors of one length; measure it again."
            )
        if not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all()):
            raise ProtocolError(
                "a prior holds values that are not finite or a negative variance. Both come from finite sums; measure "
                "it again."
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give everything as named arrays, for a checkpoint or a message; `from_arrays` reads them."""
        schema = np.frombuffer(self.schema.encode(), np.uint8).copy()
        return {
            "schema": schema,
            "patients": np.array([self.patients], np.int64),
            "mean": self.mean,
            "variance": self.variance,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Prior":
        """Read what `arrays` gave.

        Raises:
            ProtocolError: An array is missing or not what it must be.
        """
        try:
            schema = np.asarray(arrays["schema"], np.uint8).tobytes().decode()
            (patients,) = np.asarray(arrays["patients"]).tolist()
            mean = np.asarray(arrays["mean"], np.float64)
            variance = np.asarray(arrays["variance"], np.float64)
        except (KeyError, ValueError, TypeError) as error:
            raise ProtocolError(
                f"a prior with the arrays {sorted(arrays)} cannot be read ({type(error).__name__}). It needs schema, "
                f"patients, mean and variance; write it anew."
            ) from None
        return cls(schema, int(patients), mean, variance)


def pool(signatures: Iterable[Signature]) -> Prior:
    """Pool the sites' signatures: sums add, so the prior is that of all patients in one place.

    Raises:
        ProtocolError: They are of different schemas.
        AggregationError: There is none, or not one patient.
    """
    parts = list(signatures)
    if not parts:
        raise AggregationError("no signature arrived. A prior needs at least one; set `attention.every`.")
    whole = reduce(add, parts)
    if whole.patients == 0:
        raise AggregationError("the signatures hold no patient. A prior needs at least one; check the sites' data.")
    mean = whole.mean
    return Prior(whole.schema, whole.patients, mean, (whole.squares / whole.patients - mean**2).clip(min=0))
