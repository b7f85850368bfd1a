"""Named arrays of a model: between torch, messages and disk. NumPy only, no pickle."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from common.errors import RunFolderError

Arrays = dict[str, NDArray[Any]]


def model_arrays(model: nn.Module) -> Arrays:
    """Copy a model's state to NumPy, in the order of its state dict."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


def load_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put arrays into a model, in place; names and shapes must fit exactly."""
    # A copy of each: the arrays of a message are read-only views and torch would share their memory.
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, strict=True)


def is_float(array: NDArray[Any]) -> bool:
    """Tell whether an array may be averaged; integer buffers never are (design, decision 15)."""
    return bool(np.issubdtype(array.dtype, np.floating))


def update_between(new: Arrays, old: Arrays) -> Arrays:
    """Subtract old from new for every floating array."""
    return {name: new[name] - array for name, array in old.items() if is_float(array)}


def misfit(update: Mapping[str, NDArray[Any]], arrays: Arrays) -> str:
    """Say in one word why an update does not fit the arrays; empty when it does and is finite."""
    expected = {name: array.shape for name, array in arrays.items() if is_float(array)}
    if {name: array.shape for name, array in update.items()} != expected:
        return "shape"
    if not all(is_float(array) and np.isfinite(array).all() for array in update.values()):
        return "not-finite"
    return ""


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
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError(
            f"{path} cannot be written: {error.strerror}. What was saved before is unharmed; free space or choose "
            f"another `--out`, then continue with `--resume`."
        ) from None


def write_arrays(path: Path, arrays: Arrays, notes: Mapping[str, str]) -> None:
    """Write arrays and some text to a safetensors file, atomically.

    Raises:
        RunFolderError: See `write_atomic`.
    """
    write_atomic(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(notes)))


def read_arrays(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Read arrays and text back.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        found = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        raise RunFolderError(f"{path} {found}. Start the run anew in another folder with `--out`.") from None
