"""What the attention signature costs: `python tests/benchmarks/signature.py [--memory] [--json]`.

Per model, at the default width and image size: a plain forward pass, the same pass with capture, and a training step.
The three are interleaved, so that a busy machine slows all alike; medians over the repeats, ratios of medians. Seconds
are the thread's own on a CPU and the wall's on a GPU. The last column is what capture adds to the training time of a
default run when every training image is measured, the worst case: `attention.patients` caps it at larger sites.

With `--memory` instead, on a CPU: the most bytes of tensors that are alive at once during a forward pass, a capture
without the rollout, and a capture, as PyTorch's profiler counts every allocation. It is the same in every run.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from common.attention.base import AttentionModel
from common.attention.schema import schema_of
from common.attention.signature import signatures
from common.config import RunConfig, load_run_config
from common.device import choose_device
from common.models import MODELS

COLUMNS = (
    "model", "parameters", "entries", "forward", "capture", "step", "capture/forward", "capture/step", "of training"
)  # fmt: skip
ONCE = list({target: name for name, target in reversed(list(MODELS.items()))}.values())[::-1]
"""A preset and its body are one."""
PEAKS = ("model", "forward", "capture, no rollout", "capture")


def build(name: str, config: RunConfig, device: torch.device) -> AttentionModel:
    torch.manual_seed(0)
    settings = config.model.model_copy(update={"name": name})
    model: AttentionModel = MODELS.load(name)(settings, 1, 1, config.data.image_size)
    return model.to(device)


def actions(model: AttentionModel, config: RunConfig, device: torch.device) -> dict[str, Callable[[], None]]:
    size, batch = config.data.image_size, config.train.batch_size
    images = torch.rand(batch, 1, size, size, device=device) * 2 - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    schema = schema_of(model)

    def forward() -> None:
        model.eval()
        with torch.no_grad():
            model(images)

    def capture() -> None:
        signatures(model, images, schema)

    def step() -> None:
        model.train()
        logits = model(images)
        loss = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return {"forward": forward, "capture": capture, "step": step}


def medians(todo: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each action, interleaved, after two warming rounds."""
    now = time.perf_counter if device.type == "cuda" else time.thread_time
    times: dict[str, list[float]] = {name: [] for name in todo}
    for repeat in range(repeats + 2):
        for name, action in todo.items():
            start = now()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat >= 2:
                times[name].append(now() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def passes(config: RunConfig) -> int:
    """How often a run measures: every so many rounds, and once at the end."""
    every = config.attention.every
    return len(range(every, config.rounds, every)) + 1 if every else 0


def measure(name: str, config: RunConfig, repeats: int, device: torch.device) -> dict[str, float | str]:
    model = build(name, config, device)
    found = medians(actions(model, config, device), repeats, device)
    per_image = {key: 1000 * value / config.train.batch_size for key, value in found.items()}
    ratio = found["capture"] / found["step"]
    return {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "entries": schema_of(model).length,
        **per_image,
        "capture/forward": found["capture"] / found["forward"],
        "capture/step": ratio,
        "of training": ratio * passes(config) / (config.rounds * config.train.local_epochs),
    }


def peaks(name: str, config: RunConfig) -> dict[str, float | str]:
    """The most MiB of tensors alive at once, beyond those alive before, on a batch."""
    model = build(name, config, torch.device("cpu")).eval()
    images = torch.rand(config.train.batch_size, 1, config.data.image_size, config.data.image_size)
    schema = schema_of(model)
    single = replace(schema, blocks=tuple(block for block in schema.blocks if not block.chained))
    with torch.no_grad():
        plain = peak(lambda: model(images))
    return {
        "model": name,
        "forward": plain,
        "capture, no rollout": peak(lambda: signatures(model, images, single)),
        "capture": peak(lambda: signatures(model, images, schema)),
    }


def peak(action: Callable[[], object]) -> float:
    action()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    kept = profiler.profiler.kineto_results.events()
    events = sorted((event for event in kept if event.name() == "[memory]"), key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events)) / 2**20


def show(rows: list[dict[str, float | str]], columns: Sequence[str], head: str) -> None:
    print(head)
    print("".join(f"{column:>20}" for column in columns))
    for row in rows:
        cells = (row[column] for column in columns)
        print("".join(f"{cell:20.3f}" if isinstance(cell, float) else f"{cell:>20}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:i")
    parser.add_argument("--image-size", type=int, default=0, help="0: the default of the settings")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time, on a CPU")
    parser.add_argument("--json", action="store_true", help="one JSON object per model on stdout")
    options = parser.parse_args()
    torch.set_num_threads(1)
    changes = {"data.image-size": options.image_size} if options.image_size else {}
    config, device = load_run_config(changes), choose_device(options.device)
    rows = [peaks(name, config) if options.memory else measure(name, config, options.repeats, device) for name in ONCE]
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
    else:
        unit = "MiB of tensors at once" if options.memory else "forward, capture and step in milliseconds per image"
        show(rows, PEAKS if options.memory else COLUMNS, unit)


if __name__ == "__main__":
    main()
