"""What patient-level DP-SGD costs: `python tests/benchmarks/dp.py [--repeats N] [--memory]`.

A step of plain SGD and the same step under privacy (clipping and noise included), batch 64, one image a patient unless
the row says otherwise, one thread, interleaved in one process; CPU seconds, ratios of medians. Opacus's modes stand
beside ours. `--memory` runs each row in a process of its own and reports the highest resident memory over the plain
step's.
"""

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from machine import describe
from torch import Tensor, nn
from torch.nn import functional as F

from client.private.base import Clip, Engine, image_losses
from client.private.one_backward import one_backward
from client.private.per_sample import per_sample
from client.private.training import added, noised
from common.config import ModelSection, load_run_config
from common.data.base import Batch
from common.models.build import build_model
from common.randomness import SecureRandom
from common.tasks.classification import Multiclass

BATCH = 64
BARS = {"ViT 28×28": 1.5, "SE-ResNet 28×28": 1.8}
Step = Callable[[], object]


class Tokens(nn.Module):
    """Class token and positions, each in a layer of its own."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.first, self.places = Leaf(1, dim), Leaf(count + 1, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Put the class token first and add positions."""
        return self.places(torch.cat([self.first(torch.zeros_like(tokens[:, :1])), tokens], dim=1))


class Leaf(nn.Module):
    """Adds a table."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(count, dim) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Add it."""
        return tokens + self.table


class Block(nn.Module):
    """Pre-norm attention and MLP with an explicit softmax."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix, then think."""
        b, n, d = tokens.shape
        q, k, v = self.qkv(self.norm(tokens)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        maps = (q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5).softmax(-1)
        tokens = tokens + self.out((maps @ v).transpose(1, 2).reshape(b, n, d))
        return tokens + self.down(F.gelu(self.up(self.norm2(tokens))))


class ViT(nn.Module):
    """Patch 4, dim 192, depth 6, 3 heads: 2.68 M parameters."""

    def __init__(self, size: int = 28) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 192, 4, stride=4)
        self.tokens = Tokens((size // 4) ** 2, 192)
        self.blocks = nn.Sequential(*(Block(192, 3) for _ in range(6)))
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        tokens = self.tokens(self.patch(images).flatten(2).transpose(1, 2))
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class SEBlock(nn.Module):
    """Two convolutions with GroupNorm and squeeze-and-excitation of two Linear layers."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm, self.norm2 = nn.GroupNorm(8, outputs), nn.GroupNorm(8, outputs)
        self.squeeze, self.excite = nn.Linear(outputs, outputs // 8), nn.Linear(outputs // 8, outputs)
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Add the gated branch to the shortcut."""
        branch = self.norm2(self.second(F.relu(self.norm(self.first(features)))))
        gate = self.excite(F.relu(self.squeeze(branch.mean((2, 3))))).sigmoid()
        return F.relu(branch * gate[:, :, None, None] + self.short(features))


class SEResNet(nn.Module):
    """32, 64 and 128 channels, two blocks each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.GroupNorm(8, 32)
        widths = [(32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        self.blocks = nn.Sequential(*(SEBlock(*each) for each in widths))
        self.head = nn.Linear(128, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        return self.head(self.blocks(F.relu(self.norm(self.stem(images)))).mean((2, 3)))


def models() -> dict[str, tuple[Callable[[], nn.Module], int]]:
    """Give builders and image sizes: the two of the target, and our own defaults."""
    own = {name: ModelSection(name=name, width=16) for name in ("vit-tiny", "se-convnet")}
    return {
        "ViT 28×28": (ViT, 28),
        "SE-ResNet 28×28": (SEResNet, 28),
        **{
            f"{name} 48×48": (lambda section=section: build_model(section, 1, 2, 48, 1), 48)
            for name, section in own.items()
        },
    }


def rows(build: Callable[[], nn.Module], size: int) -> dict[str, Callable[[], Step]]:
    """Give each row as what prepares it, each with a model of its own."""
    torch.manual_seed(0)
    images, labels = torch.randn(BATCH, 1, size, size), torch.randint(0, 2, (BATCH,))
    return {
        "plain SGD": lambda: plain(build(), images, labels),
        "ours, one backward": lambda: ours(build(), images, labels, one_backward, BATCH),
        "ours, micro-batches of 16": lambda: ours(build(), images, labels, one_backward, 16),
        "ours, 16 patients of 4 images": lambda: ours(build(), images, labels, one_backward, BATCH, 4),
        "ours, vmap in chunks of 16": lambda: ours(build(), images, labels, per_sample, 16),
        "Opacus hooks": lambda: opacus(build(), images, labels, "hooks"),
        "Opacus functorch": lambda: opacus(build(), images, labels, "functorch"),
        "Opacus ghost": lambda: ghost(build(), images, labels),
    }


def plain(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Take ordinary steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def ours(model: nn.Module, images: Tensor, labels: Tensor, engine: Engine, micro: int, each: int = 1) -> Step:
    """Take private steps: clipped sums of micro-batches, noise from the cryptographic source, one optimizer step."""
    optimizer, random = torch.optim.SGD(model.parameters(), lr=1e-3), SecureRandom()
    parameters, losses = list(model.parameters()), image_losses(Multiclass(load_run_config().task, ("no", "yes"), ()))

    def step() -> None:
        total: list[Tensor] = []
        for start in range(0, BATCH, micro):
            part = slice(start, start + micro)
            batch = Batch(images=images[part], labels=labels[part], masks=None)
            found = engine(model, losses, batch, torch.arange(micro) // each, Clip(1.0))
            total = added(total, found.total)
        for parameter, gradient in zip(parameters, total, strict=True):
            parameter.grad = noised(gradient, 1.0, random).div_(BATCH)
        optimizer.step()

    return step


def opacus(model: nn.Module, images: Tensor, labels: Tensor, mode: str) -> Step:
    """Take Opacus's steps."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    wrapped = GradSampleModule(model, force_functorch=mode == "functorch")
    base = torch.optim.SGD(wrapped.parameters(), lr=1e-3)
    optimizer = DPOptimizer(base, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=BATCH)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(wrapped(images), labels).backward()
        optimizer.step()

    return step


def ghost(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Take Opacus's steps with ghost clipping."""
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0, use_ghost_clipping=True)
    base = torch.optim.SGD(wrapped.parameters(), lr=1e-3)
    optimizer = DPOptimizerFastGradientClipping(
        base, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=BATCH
    )
    criterion = DPLossFastGradientClipping(wrapped, optimizer, nn.CrossEntropyLoss(), loss_reduction="mean")

    def step() -> None:
        optimizer.zero_grad()
        criterion(wrapped(images), labels).backward()
        optimizer.step()

    return step


def times(name: str, repeats: int) -> None:
    """Print one model's table."""
    build, size = models()[name]
    steps: dict[str, Step] = {}
    for row, prepare in rows(build, size).items():
        try:
            step = prepare()
            step()
            steps[row] = step
        except Exception as error:  # a peer that cannot take this model is a finding
            print(f"{row}: not possible ({type(error).__name__})", file=sys.stderr)
    took: dict[str, list[float]] = {row: [] for row in steps}
    for _ in range(repeats):
        for row, step in steps.items():
            began = time.process_time()
            step()
            took[row].append(time.process_time() - began)
    median = {row: statistics.median(each) for row, each in took.items()}
    parameters = sum(parameter.numel() for parameter in copy.deepcopy(build()).parameters())
    print(f"\n**{name}**, {parameters:,} parameters\n\n| step | CPU ms | × plain |\n| --- | --- | --- |")
    for row, seconds in median.items():
        print(f"| {row} | {1e3 * seconds:.0f} | {seconds / median['plain SGD']:.2f} |")
    if name in BARS:
        whole, parts = (
            median[row] / median["plain SGD"] for row in ("ours, one backward", "ours, micro-batches of 16")
        )
        print(f"\nbar {BARS[name]}, found {whole:.2f} for the whole batch and {parts:.2f} in micro-batches")


def memory() -> None:
    """Print the highest resident memory of each row, in processes of their own."""
    for name in models():
        found = {}
        for row in ("plain SGD", "ours, one backward", "ours, micro-batches of 16", "Opacus hooks", "Opacus ghost"):
            command = [sys.executable, __file__, "--row", json.dumps([name, row])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                found[row] = float(done.stdout.split()[-1])
        print(f"\n**{name}**\n\n| step | peak MiB | × plain |\n| --- | --- | --- |")
        for row, peak in found.items():
            print(f"| {row} | {peak:.0f} | {peak / found['plain SGD']:.2f} |")


def one_row(name: str, row: str) -> None:
    """Take three steps of one row and print the highest resident memory in MiB."""
    build, size = models()[name]
    step = rows(build, size)[row]()
    for _ in range(3):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="steps whose median counts")
    parser.add_argument("--memory", action="store_true", help="highest memory in place of times")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if options.row:
        one_row(*json.loads(options.row))
        return
    print(describe())
    if options.memory:
        memory()
    else:
        for name in models():
            times(name, options.repeats)


if __name__ == "__main__":
    main()
