"""What is shipped with a trained model: how to build it, which arrays it has, and what is known of its source sites."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from client.adaptation.fasa.bands import Bands
from client.adaptation.fasa.gate import Null
from client.adaptation.source import Source
from common.arrays import Arrays, arrays_digest
from common.attention.base import AttentionModel
from common.attention.schema import schema_of
from common.errors import DataError
from common.secagg.identity import Identity
from common.shift.class_law import ClassLaw
from common.shift.nulls import Thresholds
from common.signed import read_signed, write_signed

FORMAT = 1
LAWS = ("attention", "class_features")


class Card(BaseModel):
    """How to build the model and how its images are read; nothing of where the run lay or of its data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, bool | int | float | str]
    """The run's `model.` and `task.` settings."""
    classes: tuple[str, ...]
    mask_classes: tuple[str, ...]
    channels: int
    image_size: int
    method: str
    seed: int
    privacy: str
    run: str
    """Digest of the run's settings."""
    version: str
    """Of Consilium."""


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """`model` is the digest of the arrays that it belongs to, `schema` the id of their signature, empty without one."""

    card: Card
    model: str
    schema: str
    source: Source

    def check(self, model: AttentionModel, arrays: Arrays) -> None:
        """Refuse another model than the one that was measured.

        Raises:
            DataError: The arrays are others, or this version measures attention in another way.
        """
        if (found := arrays_digest(arrays)) != self.model:
            raise DataError(
                f"the arrays have the digest {found[:12]} and the artefact belongs to {self.model[:12]}. Use both "
                f"files of one `consilium export`."
            )
        schema = schema_of(model).id if model.attention_sites else ""
        if schema != self.schema:
            raise DataError(
                f"attention is measured under the schema {schema[:12]} here and the artefact was under "
                f"{self.schema[:12]}. Run the version of Consilium that exported it ({self.card.version})."
            )


def describe(card: Card, model: AttentionModel, arrays: Arrays, source: Source) -> Artefact:
    """Make the artefact of a model as it stands."""
    return Artefact(card, arrays_digest(arrays), schema_of(model).id if model.attention_sites else "", source)


def write_artefact(path: Path, artefact: Artefact, identity: Identity) -> None:
    """Write it, signed. Of the source, what FASA needs is kept; a field that is absent stays absent.

    Raises:
        RunFolderError: The file cannot be written.
    """
    source = artefact.source
    body = {
        "format": FORMAT,
        "card": artefact.card.model_dump(mode="json"),
        "model": artefact.model,
        "schema": artefact.schema,
        "exclusive": source.exclusive,
        "images": source.images,
    }
    write_signed(path, _arrays(source), json.dumps(body, sort_keys=True), identity)


def read_artefact(path: Path, trusted: bytes, device: torch.device | None = None) -> Artefact:
    """Read what `write_artefact` wrote.

    Raises:
        DataError: It is missing, damaged, not signed by the trusted key, or of another format.
    """
    arrays, text = read_signed(path, trusted)
    try:
        body = json.loads(text)
        if body["format"] != FORMAT:
            raise DataError(
                f"{path.name} has the format {body['format']} and this version reads {FORMAT}. Use the version of "
                f"Consilium that exported it."
            )
        source = _source(arrays, device or torch.device("cpu"))
        source = replace(source, exclusive=bool(body["exclusive"]), images=int(body["images"]))
        return Artefact(Card.model_validate(body["card"]), str(body["model"]), str(body["schema"]), source)
    except (KeyError, ValueError, TypeError, ValidationError) as error:
        raise DataError(
            f"{path.name} is signed well and cannot be read ({type(error).__name__}). Use the version of Consilium "
            f"that exported it."
        ) from None


def file_digest(path: Path) -> str:
    """SHA-256 of a file, for the journal.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}. Put the shipped files back.") from None


def _arrays(source: Source) -> Arrays:
    found: dict[str, NDArray[Any]] = {}
    for name in ("class_prior", "confusion"):
        value = getattr(source, name)
        if value is not None:
            found[name] = value.double().cpu().numpy()
    for name in LAWS:
        law = getattr(source, name)
        if law is not None:
            found |= {f"{name}.counts": law.counts, f"{name}.means": law.means, f"{name}.variance": law.variance}
    if source.bands is not None:
        found |= {"bands.low": source.bands.low, "bands.high": source.bands.high}
    if source.null is not None:
        ends = source.null.thresholds
        found["null"] = np.array([ends.sample, ends.site, source.null.window], np.float64)
    return found


def _source(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> Source:
    values: dict[str, Any] = {
        name: torch.from_numpy(np.array(arrays[name], np.float64)).to(device)
        for name in ("class_prior", "confusion")
        if name in arrays
    }
    for name in LAWS:
        if f"{name}.counts" in arrays:
            values[name] = ClassLaw(*(np.array(arrays[f"{name}.{part}"]) for part in ("counts", "means", "variance")))
    if "bands.low" in arrays:
        values["bands"] = Bands(np.array(arrays["bands.low"]), np.array(arrays["bands.high"]))
    if "null" in arrays:
        sample, site, window = arrays["null"].tolist()
        values["null"] = Null(Thresholds(sample, site), int(window))
    return Source(**values)
