"""The share of a round that measuring the attention signature takes at the default schedule."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
import workload

from client.evaluation import predict
from client.signature import measure
from client.training import train
from common.allocator import keep_freed_memory
from common.config import load_run_config
from common.data.federation import open_federation
from common.models.build import build_model
from common.tasks.build import build_task

MODELS = {"se-convnet": 0.10, "vit-tiny": 0.20}
"""Model and its bar: the most of the training time that measuring may take, gates and self-attention."""
SIDE = 48


def run(folder: Path, repeats: int) -> dict[str, Any]:
    """Time training, judging and measuring at one site in turn, CPU seconds, for each model at the default settings."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as every process that trains
    path = folder / "capture.npz"
    workload.write(path, workload.Size(sites=1, train=240, val=60))
    shares = {name: share(path, {"model.name": name}, repeats) for name in MODELS}
    return {"shares": shares, "lines": [_line(name, row) for name, row in shares.items()]}


def _line(name: str, row: dict[str, float]) -> str:
    verdict = "met" if row["run_share"] <= MODELS[name] else "MISSED"
    return (
        f"{name}: {row['share']:.1%} of a round (train {row['train']:.2f} s, judge {row['judge']:.2f} s, measure "
        f"{row['measure']:.2f} s every {row['every']} rounds); {row['run_share']:.1%} of a run of {row['rounds']} "
        f"rounds, which measures {row['looks']} times, bar {MODELS[name]:.0%}: {verdict}"
    )


def share(path: Path, model_settings: dict[str, str], repeats: int) -> dict[str, float]:
    """Time the three steps of a site for one model, medians, and what share of a round and a run measuring is."""
    changes = {"data.name": "archive", "data.path": str(path), "data.image-size": SIDE, "task.name": "multiclass"}
    config = load_run_config({**changes, **model_settings})
    federation = open_federation(config.data)
    site = federation.sites[0]
    task = build_task(config.task, federation.classes, federation.mask_classes)
    model = build_model(config.model, federation.channels, task.outputs, federation.image_size, 1)
    steps = {
        "train": lambda: train(model, task, site.train, config.train, 1),
        "judge": lambda: predict([model], task, site.val),
        "measure": lambda: measure(model, site.train, config.attention, 1),
    }
    times: dict[str, list[float]] = {step: [] for step in steps}
    for repeat in range(repeats + 1):
        for step, work in steps.items():
            began = time.process_time()
            work()
            if repeat:  # the first pass warms up
                times[step].append(time.process_time() - began)
    every, rounds = config.attention.every, config.rounds
    # The scheduled rounds, and the last, which always measures.
    looks = sum((number - 1) % every == 0 for number in range(2, rounds + 1)) + 1
    medians: dict[str, float] = {step: statistics.median(values) for step, values in times.items()}
    medians |= {"every": every, "rounds": rounds, "looks": looks}
    for name, each in (("share", 1 / every), ("run_share", looks / rounds)):
        passes = zip(times["train"], times["judge"], times["measure"], strict=True)
        medians[name] = statistics.median(m * each / (t + j + m * each) for t, j, m in passes)
    return medians
