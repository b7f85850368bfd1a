"""One training by one of our engines, as a study does it: with checkpoint and history after every round."""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from common.config import load_run_config
from common.data.federation import open_federation
from server.history import POOLED, RoundRecord
from simulations.engine import Training, train


def main() -> None:
    """Run once and print when each round ended, on the clock of this machine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=json.loads)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("--engine", choices=["in-process", "ray"], default="in-process")
    parser.add_argument("--workers", type=int, required=True)
    given = parser.parse_args()
    ends: list[float] = []
    losses: list[float] = []

    def observe(record: RoundRecord) -> None:
        ends.append(time.time())
        losses.append(record.evaluation[POOLED]["loss"])

    config = load_run_config(given.settings)
    sites = tuple((site.name,) for site in open_federation(config.data).sites)
    training = Training("bench", config, sites)
    if given.engine == "ray":
        from simulations.ray_engine import train_on_ray

        checkpoint = train_on_ray(training, observe, workers=given.workers)
    else:
        checkpoint = train(training, observe, workers=given.workers)
    np.savez(given.arrays, **checkpoint.arrays)
    print(json.dumps({"ends": ends, "losses": losses}))


if __name__ == "__main__":
    main()
