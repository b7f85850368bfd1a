"""The attention signature: where and how the model looks at a site's patients, in one short vector of norm ≤ 1."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.attention.base import AttentionModel
from common.attention.choice import choose_images
from common.attention.recorder import Recorder
from common.attention.reduction import Reduction, assemble
from common.attention.schema import Block, Schema, schema_of
from common.errors import DataError, ProtocolError

__all__ = ["Block", "Schema", "Signature", "SignatureMeter", "choose_images", "schema_of", "signatures"]


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """A site's sums over its patients of s_p and s_p², s_p being the mean signature of patient p's images.

    One patient changes `total` by at most 1 and `squares` by at most 1 (L2). Signatures of one schema add: the sum is
    the signature of all their patients together.

    Shapes: total, squares float64 [d], d the schema's length.
    """

    schema: str
    patients: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = (np.shape(self.total), np.shape(self.squares))
        if self.patients < 0 or len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            raise ProtocolError(
                f"a signature has {self.patients} patients and sums of shape {shapes[0]} and {shapes[1]}. Allowed are "
                f"0 or more patients and two vectors of one length; run one version of Consilium everywhere."
            )
        if not (np.isfinite(self.total).all() and np.isfinite(self.squares).all()):
            raise ProtocolError(
                "a signature holds values that are not finite. Only finite sums can be pooled; measure it again."
            )

    def __add__(self, other: "Signature") -> "Signature":
        check_same(self.schema, other.schema)
        return Signature(
            self.schema, self.patients + other.patients, self.total + other.total, self.squares + other.squares
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean signature of a patient.

        Raises:
            DataError: There is no patient.
        """
        if self.patients == 0:
            raise DataError("a signature of no patients has no mean. Measure at least one patient.")
        return self.total / self.patients


def check_same(left: str, right: str) -> None:
    """Refuse to bring together what was measured under two schemas.

    Raises:
        ProtocolError: The ids differ.
    """
    if left != right:
        raise ProtocolError(
            f"signatures of the schemas {left[:12]} and {right[:12]} meet. Only equal ones may be added or compared; "
            f"measure both with the same model, settings and version of Consilium."
        )


def signatures(model: AttentionModel, images: Tensor, schema: Schema | None = None) -> Tensor:
    """Measure each image: blocks scaled and laid side by side, more than 256 entries projected to 128.

    The model is in eval mode without gradients meanwhile, and is left as it was. Only the sites of the schema, and
    the layers that its rollout runs through, are listened to; their maps live until their blocks are computed.

    Shapes: images [B, C, H, W] in [-1, 1] -> float64 [B, d] on the images' device, norm of each row ≤ 1.

    Raises:
        AttentionError: A site stays silent or its tensor is not what it should be.
    """
    schema = schema or schema_of(model)
    reduction = Reduction(schema, model.attention_sites)
    with measuring(model), Recorder(model, reduction.sites, reduction) as recorder:
        model(images)
        rows = assemble(recorder.take().values(), schema)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / norms.clamp_min(1)  # rounding may pass 1 by 1e-7


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode and stop gradients; afterwards each has its own mode back."""
    with evaluating(model), torch.no_grad():
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode; afterwards each has its own mode back."""
    modes = [(module, module.training) for module in model.modules() if module.training]
    if modes:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class SignatureMeter:
    """Adds up the signatures of many batches per patient; keeps one vector per patient and nothing of the images."""

    def __init__(self, model: AttentionModel) -> None:
        self.schema = schema_of(model)
        self._model = model
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._images: dict[str, int] = {}

    def add(self, images: Tensor, patients: Sequence[str] | NDArray[np.str_]) -> None:
        """Measure a batch; `patients` names the patient of each image.

        Raises:
            DataError: Not one patient per image.
            AttentionError: As `signatures`.
        """
        if len(images) != len(patients):
            raise DataError(
                f"{len(images)} images come with {len(patients)} patients. Every image needs exactly one patient; "
                f"correct the column that `data.patient` names."
            )
        if len(images) == 0:
            return
        rows = signatures(self._model, images, self.schema).cpu().numpy()
        for patient, row in zip(map(str, patients), rows, strict=True):
            self._note(patient, row)

    def add_unread(self, patient: str) -> None:
        """Note an image whose attention cannot be read: its patient's mean is then not finite."""
        self._note(str(patient), np.full(self.schema.length, np.nan))

    def _note(self, patient: str, row: NDArray[np.float64]) -> None:
        self._sums[patient] = self._sums[patient] + row if patient in self._sums else row.copy()
        self._images[patient] = self._images.get(patient, 0) + 1

    def finish(self) -> Signature:
        """Give the sums over all patients so far; a patient counts once, however many images."""
        total, squares = np.zeros(self.schema.length), np.zeros(self.schema.length)
        for mean in self.means().values():
            total += mean
            squares += mean**2
        return Signature(self.schema.id, len(self._sums), total, squares)

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Give each patient's mean signature [d], of norm ≤ 1. It never leaves the site."""
        # A fixed order: the last bit of a sum does not depend on the order of batches.
        return {patient: self._sums[patient] / self._images[patient] for patient in sorted(self._sums)}
