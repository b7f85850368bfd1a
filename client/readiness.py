"""Is this site ready: settings, data, disk, device."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import typer

from client.site import open_hospital_data, read_site_config
from common.config import load_run_config
from common.device import choose_device
from common.errors import ConfigError

ENOUGH_GIB = 1.0


def check_site(path: Path) -> dict[str, Any]:
    """Check everything a site needs before it joins, and count what it has; no patient or file is named.

    Raises:
        ConfigError: The TOML is wrong, the state folder cannot be written, or the disk is nearly full.
        DataError: The data are not what they must be.
    """
    own = read_site_config(path)
    data = open_hospital_data(load_run_config(), own)
    site = data.sites[0]
    return {
        "site": own.name,
        "device": str(choose_device(own.device)),
        "free_gib": round(_free_gib(own.state), 1),
        "classes": list(data.classes),
        "image": [data.channels, data.image_size, data.image_size],
        **{
            split: {"images": len(part), "patients": len(set(part.patients.tolist()))}
            for split, part in (("train", site.train), ("val", site.val), ("test", site.test))
        },
    }


def show(found: dict[str, Any], as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key, value in found.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        typer.echo(f"{key:>10}  {text}")
    typer.echo("ready: settings, data, disk and device are in order. Privacy mechanism: none.")


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
