"""One line about the machine, for a figure means nothing without it."""

import os
import platform
from pathlib import Path

import torch


def describe() -> str:
    """Name the processor, cores, load, Python and torch."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores of {model}, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
