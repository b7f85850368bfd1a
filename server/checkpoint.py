"""All that a run needs to go on: arrays, the strategy's state, the pooled prior and each site's last signature."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.arrays import Arrays, read_arrays, write_arrays
from common.attention.prior import Prior
from common.attention.signature import Signature
from common.errors import ConsiliumError, RunFolderError

NAME = "checkpoint.safetensors"


@dataclass(slots=True)
class Checkpoint:
    """The state after `round` rounds. `sums` adds up the arrays of the rounds that are averaged (`averaging.py`)."""

    round: int
    arrays: Arrays
    state: Arrays = field(default_factory=dict)
    sums: Arrays = field(default_factory=dict)
    prior: Prior | None = None
    signatures: dict[str, Signature] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, config_digest: str) -> None:
    """Write the checkpoint atomically; the one before stays whole until then.

    Raises:
        RunFolderError: The disk is full or the folder cannot be written.
    """
    notes = {"round": str(checkpoint.round), "config-digest": config_digest}
    arrays: Arrays = {f"arrays/{name}": array for name, array in checkpoint.arrays.items()}
    arrays |= {f"state/{name}": array for name, array in checkpoint.state.items()}
    arrays |= {f"sums/{name}": array for name, array in checkpoint.sums.items()}
    if prior := checkpoint.prior:
        arrays |= {"prior/mean": prior.mean, "prior/variance": prior.variance}
        notes |= {"prior/schema": prior.schema, "prior/patients": str(prior.patients)}
    for site, signature in checkpoint.signatures.items():
        arrays |= {f"signature/total/{site}": signature.total, f"signature/squares/{site}": signature.squares}
        notes |= {f"signature/schema/{site}": signature.schema, f"signature/patients/{site}": str(signature.patients)}
    write_arrays(folder / NAME, arrays, notes)


def load_checkpoint(folder: Path, config_digest: str | None = None) -> Checkpoint | None:
    """Read the checkpoint; None when the run has not finished its first round.

    Raises:
        RunFolderError: The file is damaged, or belongs to a run with other settings.
    """
    if not (folder / NAME).exists():
        return None
    arrays, notes = read_arrays(folder / NAME)
    if config_digest is not None and notes.get("config-digest") != config_digest:
        raise RunFolderError(
            f"{folder} holds a run with other settings. Resume it with the settings it began with (they are in "
            f"`run.json`), or give another `--out`."
        )
    try:
        return _checkpoint(arrays, notes)
    except (KeyError, ValueError, ConsiliumError):
        raise RunFolderError(
            f"{folder / NAME} is no checkpoint of this version. Start the run anew in another folder with `--out`."
        ) from None


def _checkpoint(arrays: Arrays, notes: Mapping[str, str]) -> Checkpoint:
    prior = None
    if "prior/schema" in notes:
        prior = Prior(
            schema=notes["prior/schema"],
            patients=int(notes["prior/patients"]),
            mean=arrays["prior/mean"],
            variance=arrays["prior/variance"],
        )
    sites = [key.removeprefix("signature/schema/") for key in notes if key.startswith("signature/schema/")]
    return Checkpoint(
        round=int(notes["round"]),
        arrays=_below("arrays/", arrays),
        state=_below("state/", arrays),
        sums=_below("sums/", arrays),
        prior=prior,
        signatures={
            site: Signature(
                schema=notes[f"signature/schema/{site}"],
                patients=int(notes[f"signature/patients/{site}"]),
                total=arrays[f"signature/total/{site}"],
                squares=arrays[f"signature/squares/{site}"],
            )
            for site in sites
        },
    )


def _below(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
