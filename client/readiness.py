"""Is this site ready: settings, data, disk, device."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import typer

from client.site import open_hospital_data
from client.site_settings import read_site_config
from common.config import load_run_config
from common.data.base import Dataset
from common.data.splits import SPLITS
from common.device import choose_device
from common.errors import ConfigError
from common.items import item_shape

ENOUGH_GIB = 1.0
UNBOUNDED = (
    "Privacy mechanism: none. This site has no [budget], so a run decides whether what leaves carries noise; images "
    "never leave it."
)


def check_site(path: Path) -> dict[str, Any]:
    """Check everything a site needs before it joins, and count what it has; no patient or file is named.

    Raises:
        ConfigError: The TOML is wrong, the state folder cannot be written, or the disk is nearly full.
        DataError: The data are not what they must be.
    """
    own = read_site_config(path)
    data = open_hospital_data(load_run_config(), own)
    parts = {split: getattr(data.sites[0], split) for split in SPLITS}
    return {
        "site": own.name,
        "device": str(choose_device(own.device)),
        "free_gib": round(_free_gib(own.state), 1),
        "classes": list(data.classes),
        "image": list(item_shape(data.channels, data.image_size, parts["train"].images.shape[2])),
        **{split: _counts(part) for split, part in parts.items()},
        "notes": [note for split, part in parts.items() for note in _notes(split, part)],
        "privacy": f"at most epsilon {own.budget.epsilon:g} at delta {own.budget.delta:g}" if own.budget else "none",
    }


def show(found: dict[str, Any], as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key in ("site", "device", "free_gib"):
        typer.echo(f"{key:>10}  {found[key]}")
    typer.echo(f"{'classes':>10}  {', '.join(found['classes']) or 'none named'}")
    typer.echo(f"{'image':>10}  {' × '.join(map(str, found['image']))}")
    for split in SPLITS:
        typer.echo(f"{split:>10}  {', '.join(f'{count} {what}' for what, count in found[split].items())}")
    for note in found["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(f"ready: settings, data, disk and device are in order.\n{_privacy(found)}")


def _privacy(found: dict[str, Any]) -> str:
    if found["privacy"] == "none":
        return UNBOUNDED
    return f"Privacy: {found['privacy']} a patient, over all runs; a run without noise is refused. Images never leave."


def _counts(data: Dataset) -> dict[str, int]:
    """Count images, patients, and images of each class or with a mask."""
    counts = {"images": len(data), "patients": len(set(data.patients.tolist()))}
    if data.labels is not None:
        each = np.bincount(data.labels, minlength=len(data.classes)) if data.labels.ndim == 1 else data.labels.sum(0)
        counts |= {f"of {name}": int(count) for name, count in zip(data.classes, each, strict=True)}
    if data.masks is not None:
        counts["with foreground"] = int(data.masks.any(axis=(1, 2)).sum())
    return counts


def _notes(split: str, data: Dataset) -> list[str]:
    """Say what is allowed and worth knowing: with one class the site trains along, and some metrics are undefined."""
    if data.labels is None or data.labels.ndim != 1 or len(set(data.labels.tolist())) != 1:
        return []
    only = data.classes[int(data.labels[0])]
    return [f"all {split} images are of one class ({only}); metrics that compare classes are undefined on them"]


def _free_gib(state: Path) -> float:
    try:
        state.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(state).free / 2**30
    except OSError as error:
        raise ConfigError(f"the state folder cannot be made: {error.strerror}. Choose another `state`.") from None
    if not os.access(state, os.W_OK):
        raise ConfigError(
            "the state folder cannot be written by this user. Change its rights or choose another `state`."
        )
    if free < ENOUGH_GIB:
        raise ConfigError(
            f"{free:.2f} GiB are free where `state` lies; at least {ENOUGH_GIB:g} are needed. Free space."
        )
    return free
