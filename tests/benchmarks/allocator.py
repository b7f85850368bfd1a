"""What `keep_freed_memory` is worth: training steps of three models with and without, each in a fresh process."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
from machine import describe

from common.allocator import keep_freed_memory
from common.config import ModelSection
from common.models.build import build_model

CASES = (("attention-unet", 128), ("se-convnet", 128), ("se-convnet", 48), ("vit-tiny", 28))
BATCH, STEPS = 32, 8


def main() -> None:
    """Print a table; with `--one` be one of the processes and print its figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench allocator", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "SIDE", "KEEP"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(step(given.one[0], int(given.one[1]), given.one[2] == "keep")))
        return
    print(describe(), "\n\n| model, side | CPU ms a step | kept | | peak MiB | kept |\n|---|---|---|---|---|---|")
    for model, side in CASES:
        pairs = [[_process(model, side, keep) for keep in ("give", "keep")] for _ in range(given.repeats)]
        (cpu, peak), (kept_cpu, kept_peak) = (
            [statistics.median(pair[side][figure] for pair in pairs) for figure in (0, 1)] for side in (0, 1)
        )
        share = statistics.median(kept[0] / given_back[0] for given_back, kept in pairs) - 1
        print(f"| {model}, {side} | {cpu:.0f} | {kept_cpu:.0f} | {share:+.0%} | {peak:.0f} | {kept_peak:.0f} |")


def step(name: str, side: int, keep: bool) -> tuple[float, float]:
    """Give CPU milliseconds of a step (median) and the peak of resident memory, MiB."""
    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    dense = name == "attention-unet"
    model = build_model(ModelSection(name=name, width=16), 1, 1, side, seed=1, dense=dense)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.randn(BATCH, 1, side, side)
    times = []
    for _ in range(STEPS):
        began = time.process_time()
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        times.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return statistics.median(times[2:]) * 1000, peak


def _process(model: str, side: int, keep: str) -> tuple[float, float]:
    words = [sys.executable, __file__, "--one", model, str(side), keep]
    done = subprocess.run(words, env=dict(os.environ), capture_output=True, text=True, check=True)
    cpu, peak = json.loads(done.stdout)
    return cpu, peak


if __name__ == "__main__":
    main()
