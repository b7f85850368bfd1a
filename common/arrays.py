"""Named arrays of a model: between torch, messages and disk. NumPy only, no pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from common.errors import ProtocolError, RunFolderError

NOTES = "consilium"
"""The one metadata key of an arrays file, for several would be written in a random order; its value is JSON."""

Arrays = dict[str, NDArray[Any]]


def model_arrays(model: nn.Module) -> Arrays:
    """Copy a model's state to NumPy, in the order of its state dict."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


def load_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put arrays into a model, in place.

    Raises:
        ProtocolError: Names or shapes are not exactly the model's.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: array.shape for name, array in arrays.items()}
    if expected != given:
        wrong = sorted(name for name in {*expected, *given} if expected.get(name) != given.get(name))
        raise ProtocolError(
            f"{len(wrong)} arrays do not fit the model, first {wrong[0]!r}: {given.get(wrong[0], 'missing')} instead "
            f"of {expected.get(wrong[0], 'none')}. Use the model settings and the version that the arrays come from."
        )
    # A copy of each: the arrays of a message are read-only views and torch would share their memory.
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, strict=True)


def is_float(array: NDArray[Any]) -> bool:
    """Tell whether an array may be averaged; integer buffers never are (design, decision 15)."""
    return bool(np.issubdtype(array.dtype, np.floating))


def update_between(new: Arrays, old: Arrays) -> Arrays:
    """Subtract old from new for every floating array; what overflows is refused where it arrives."""
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: new[name] - array for name, array in old.items() if is_float(array)}


def misfit(update: Mapping[str, NDArray[Any]], arrays: Arrays) -> str:
    """Say in one word why an update does not fit the arrays; empty when it does and is finite."""
    expected = {name: array for name, array in arrays.items() if is_float(array)}
    if {name: array.shape for name, array in update.items()} != {name: array.shape for name, array in expected.items()}:
        return "shape"
    if any(array.dtype != expected[name].dtype for name, array in update.items()):
        return "dtype"
    return "" if all_finite(update) else "not-finite"


def all_finite(arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Tell whether no array holds NaN or infinity."""
    return all(bool(np.isfinite(array).all()) for array in arrays.values())


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is either the old one or the new one.

    Raises:
        RunFolderError: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written: {error.strerror}. What was saved before is unharmed; free space or choose "
            f"another `--out`, then continue with `--resume`."
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename last: until then a power cut may bring the old name back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_arrays(path: Path, arrays: Arrays, notes: Mapping[str, str]) -> None:
    """Write arrays and some text to a safetensors file, atomically.

    Raises:
        RunFolderError: See `write_atomic`.
    """
    # Not ascontiguousarray, which gives an array without axes (a batch counter) one.
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    table = {"notes": dict(notes), "sha256": _digest(whole, notes)}  # the format itself has no checksum
    write_atomic(path, save(whole, {NOTES: json.dumps(table, sort_keys=True)}))


def read_arrays(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Read arrays and text back.

    Raises:
        RunFolderError: The file is missing, or differs from what was written.
    """
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            table = json.loads((file.metadata() or {})[NOTES])
        notes, digest = table["notes"], table["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        found = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        raise RunFolderError(f"{path} {found}. Start the run anew in another folder with `--out`.") from None
    if digest != _digest(arrays, notes):
        raise RunFolderError(f"{path} is damaged: its digest differs. Start the run anew in another folder.")
    return arrays, notes


def arrays_digest(arrays: Arrays) -> str:
    """SHA-256 over names, types, shapes and bytes: which model this is. Names may come in any order."""
    return _digest(arrays, {})


def _digest(arrays: Arrays, notes: Mapping[str, str]) -> str:
    hash_ = hashlib.sha256(json.dumps(dict(notes), sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        hash_.update(repr((name, array.dtype.str, array.shape)).encode())
        hash_.update(np.ascontiguousarray(array).data)
    return hash_.hexdigest()
