"""Memory stays flat over rounds: nothing of a round is kept but its record."""

import gc
import os
from pathlib import Path

import pytest

from simulations.engine import Training, train
from tests.federations import SITES, small_config

WARM, ROUNDS = 30, 100


def resident_bytes() -> int:
    """RSS of this process and its children."""
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (me, *children)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_hundred_rounds_take_no_more_memory_than_thirty(workers, tmp_path):
    seen = {}

    def observe(record):
        if record.round in (WARM, ROUNDS):
            gc.collect()
            seen[record.round] = resident_bytes()

    config = small_config(rounds=ROUNDS, out=str(tmp_path))
    train(Training("long", config, tuple((site,) for site in SITES)), observe, workers=workers)
    assert seen[ROUNDS] < 1.05 * seen[WARM]
