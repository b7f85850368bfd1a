#!/usr/bin/env python3
"""Print the table of docs/reference/models.md: size and cost of every model.

python scripts/model_table.py --size 48 --batch 32
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from common.attention.base import AttentionModel
from common.config import ModelSection, load_run_config
from common.errors import ConfigError
from common.models import MODELS
from common.models.build import build_model


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=48, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--width", type=int, default=load_run_config().model.width, help="`model.width`")
    parser.add_argument("--repeats", type=int, default=30, help="steps whose median is shown")
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randn(given.batch, 1, given.size, given.size, generator=torch.Generator().manual_seed(0))
    print("| model | answers per | parameters | attention sites | forward ms | training step ms |")
    print("|---|---|---|---|---|---|")
    for name in MODELS:
        model = build(ModelSection(name=name, width=given.width), given.size)
        count = sum(parameter.numel() for parameter in model.parameters())
        kinds = dict.fromkeys(site.kind for site in model.attention_sites)
        times = median_ms(forward(model, images), given.repeats), median_ms(step(model, images), given.repeats)
        print(
            f"| `{name}` | {'pixel' if model.dense else 'image'} | {count:,} | "
            f"{len(model.attention_sites)} ({', '.join(kinds)}) | {times[0]:.1f} | {times[1]:.1f} |"
        )


def build(settings: ModelSection, size: int) -> AttentionModel:
    """Build a model whichever kind it is."""
    try:
        return build_model(settings, 1, 1, size, seed=0)
    except ConfigError:
        return build_model(settings, 1, 1, size, seed=0, dense=True)


def forward(model: AttentionModel, images: torch.Tensor) -> Callable[[], None]:
    """Give one forward pass as at evaluation."""

    def run() -> None:
        with torch.inference_mode():
            model(images)

    return run


def step(model: AttentionModel, images: torch.Tensor) -> Callable[[], None]:
    """Give one step of AdamW."""
    optimizer = torch.optim.AdamW(model.parameters())

    def run() -> None:
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    return run


def median_ms(run: Callable[[], None], repeats: int) -> float:
    """Measure CPU time, which a busy machine disturbs less than the clock."""
    times = []
    for _ in range(repeats + 5):
        start = time.process_time()
        run()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times[5:])


if __name__ == "__main__":
    main()
