"""Memory over a hundred rounds: resident pages of the parent and its workers must not grow."""

import os
import statistics
from pathlib import Path
from typing import Any

import workload
from meter import descendants, memory_mib

from common.config import load_run_config
from server.history import RoundRecord
from simulations.engine import Training, train

ROUNDS, DECADE, BAR = 100, 10, 0.05


def run(folder: Path, workers: int) -> dict[str, Any]:
    """Train a small workload with signatures every five rounds, and look at the memory after every round.

    Growth is from the median of the first ten rounds to that of the last ten: a single look varies by some per cent
    with what the allocator has just given back.
    """
    size = workload.Size(sites=4, train=96, val=32)
    path = folder / "memory.npz"
    workload.write(path, size)
    changes = {"out": str(folder / "run"), "attention.every": 5}
    config = load_run_config(workload.settings(path, ROUNDS) | changes)
    resident: list[float] = []

    def observe(record: RoundRecord) -> None:
        resident.append(memory_mib([os.getpid(), *descendants(os.getpid())], "Rss"))

    sites = tuple((f"site-{index}",) for index in range(size.sites))
    train(Training("memory", config, sites), observe, workers=workers)
    medians = [statistics.median(resident[start : start + DECADE]) for start in range(0, ROUNDS, DECADE)]
    growth = medians[-1] / medians[0] - 1
    return {
        "rss_mib": resident,
        "growth": growth,
        "lines": [
            f"{ROUNDS} rounds, {size.sites} sites, {workers} workers; resident MiB of all processes, medians of ten:",
            "  ".join(f"{value:.0f}" for value in medians),
            f"growth from the first to the last: {growth:+.2%}, bar {BAR:.0%}: {'met' if growth < BAR else 'MISSED'}",
        ],
    }
