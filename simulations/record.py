"""What was run, with which code, data and libraries: a result carries all of it."""

import hashlib
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.data.base import Dataset
from common.data.federation import Federation
from common.device import choose_device
from common.tasks.base import Task
from simulations.experiment import Experiment
from simulations.report.sections import privacy_text
from simulations.results import SUMMARIES

ROOT = Path(__file__).parent.parent
PACKAGES = ("server", "client", "common", "simulations")


def code_record() -> dict[str, str]:
    """Version, commit (empty outside a git checkout) and SHA-256 over all source files."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return {"version": _version("consilium-fl"), "commit": _commit(), "digest": digest.hexdigest()}


def environment_record(wish: str) -> dict[str, Any]:
    """Interpreter, libraries, machine, and the device that the setting `train.device` led to."""
    device = choose_device(wish)
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "flwr": _version("flwr"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count() or 1,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def data_record(federation: Federation, task: Task) -> dict[str, Any]:
    """The data set, its digests, and how many patients and images each site has."""
    return {
        "name": federation.name,
        "digest": federation.data_digest,
        "split_digest": federation.split_digest,
        "licence": federation.licence,
        "classes": list(federation.classes),
        "mask_classes": list(federation.mask_classes),
        "image_size": federation.image_size,
        "channels": federation.channels,
        "sites": [
            {
                "name": site.name,
                "role": site.role,
                "train": _counts(site.train),
                "val": _counts(site.val),
                "test": _counts(site.test),
                "positive_share": _positive_share(task.prepare(site.test), task),
            }
            for site in federation.sites
        ],
    }


def notes(
    experiment: Experiment, began: Mapping[str, str], code: Mapping[str, str], headline: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Say what a reader should know: title, privacy, a change of code on the way, metrics that sites cannot have."""
    found = [experiment.study.title] if experiment.study.title else []
    found.append(privacy_text(experiment.config.protection))
    if began["code"] != code["digest"]:
        found.append(
            f"The code changed while the run was stopped: it began with {began['code'][:12]} and ended with "
            f"{code['digest'][:12]}."
        )
    undefined: dict[str, dict[str, None]] = {}
    for row in headline:
        if not math.isfinite(row["value"]) and row["site"] not in SUMMARIES:
            undefined.setdefault(row["site"], {})[row["metric"]] = None
    for site, metrics in undefined.items():
        found.append(
            f"{site}: {', '.join(metrics)} cannot be computed on its test images (one class only, or no foreground) "
            f"for at least one method; shown as –, and left out of means over sites."
        )
    return found


def _counts(data: Dataset) -> dict[str, int]:
    return {"patients": len(set(data.patients.tolist())), "images": len(data)}


def _positive_share(data: Dataset, task: Task) -> float | None:
    """Give the share of positive images: binary by label, segmentation by a mask that is not empty; else None."""
    if task.dense and data.masks is not None:
        return float(data.masks.any(axis=(1, 2)).mean())
    if task.outputs == 1 and data.labels is not None:
        return float(np.mean(data.labels))
    return None


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    if not (ROOT / ".git").exists():  # an installed copy may lie inside somebody else's repository
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
