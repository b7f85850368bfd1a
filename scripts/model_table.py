#!/usr/bin/env python3
"""Print the tables of docs/reference/models.md: size and cost of every model, or of one body with every layer.

python scripts/model_table.py --size 48 --batch 32
python scripts/model_table.py --body convnet --repeats 15
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from common.attention import ATTENTION
from common.attention.base import AttentionModel
from common.attention.blocks import RULES
from common.attention.signature import schema_of, signatures
from common.config import ModelSection, load_run_config
from common.errors import ConfigError
from common.models import MODELS
from common.models.build import build_model
from common.models.placement import NONE


def main() -> None:
    """Print one line per model, or per layer that fits the body."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=48, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--width", type=int, default=load_run_config().model.width, help="`model.width`")
    parser.add_argument("--repeats", type=int, default=30, help="steps whose median is shown")
    parser.add_argument("--body", choices=list(MODELS), help="one body with every layer of ATTENTION that fits it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randn(given.batch, 1, given.size, given.size, generator=torch.Generator().manual_seed(0))
    if given.body:
        print_layers(given.body, given.width, images, given.repeats)
    else:
        print_models(given.width, images, given.repeats)


def print_models(width: int, images: torch.Tensor, repeats: int) -> None:
    """One line per builder; a preset and its body are one."""
    print("| model | answers per | parameters | attention sites | forward ms | training step ms |")
    print("|---|---|---|---|---|---|")
    for name in {target: name for name, target in reversed(list(MODELS.items()))}.values():
        model = build(ModelSection(name=name, width=width), images.shape[-1])
        times = median_ms(forward(model, images), repeats), median_ms(step(model, images), repeats)
        print(
            f"| `{name}` | {'pixel' if model.dense else 'image'} | {parameters(model):,} | "
            f"{sites(model)} | {times[0]:.1f} | {times[1]:.1f} |"
        )


def print_layers(body: str, width: int, images: torch.Tensor, repeats: int) -> None:
    """One line per layer; capture is a signature of the batch, in per cent of a training step on it."""
    print("| `model.attention` | parameters | attention sites | forward ms | training step ms | capture, % of a step |")
    print("|---|---|---|---|---|---|")
    for name in (NONE, *ATTENTION):
        try:
            model = build(ModelSection(name=body, width=width, attention=name), images.shape[-1])
        except ConfigError:
            continue
        times = median_ms(forward(model, images), repeats), median_ms(step(model, images), repeats)
        share = "–"
        if model.attention_sites and all(site.kind in RULES for site in model.attention_sites):
            schema = schema_of(model)
            capture = median_ms(lambda model=model, schema=schema: signatures(model, images, schema), repeats)
            share = f"{100 * capture / times[1]:.0f}"
        print(f"| `{name}` | {parameters(model):,} | {sites(model)} | {times[0]:.1f} | {times[1]:.1f} | {share} |")


def parameters(model: AttentionModel) -> int:
    """Count them."""
    return sum(parameter.numel() for parameter in model.parameters())


def sites(model: AttentionModel) -> str:
    """How many, and of which kinds."""
    kinds = dict.fromkeys(site.kind for site in model.attention_sites)
    return f"{len(model.attention_sites)} ({', '.join(kinds)})" if kinds else "0"


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


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Measure CPU time, which a busy machine disturbs less than the clock."""
    times = []
    for _ in range(repeats + 5):
        start = time.process_time()
        run()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times[5:])


if __name__ == "__main__":
    main()
