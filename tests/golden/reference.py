"""Reference outputs beside the repository: how one is read, and how a layer of ours is held against it."""

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FOLDER = Path(__file__).parents[3] / "shared" / "golden"

LARGEST: dict[str, float] = {}
"""Test to the largest difference from its reference, over all outputs and maps; filled as tests run."""


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """The batch normalisation of published code, for any number of axes."""

    def _check_input_dim(self, input):
        pass


@dataclass(frozen=True)
class Sizes:
    """What the builder of a layer may read: shapes by original name, axes of the grid, and how theirs was called."""

    shapes: Mapping[str, list[int]]
    dims: int
    call: str
    inputs: Mapping[str, list[int]]
    outputs: Mapping[str, list[int]]


@dataclass(frozen=True)
class Reference:
    """One row of a table of weight mappings.

    `names` maps a submodule, or one parameter, of ours to theirs that holds the same values; `inputs` lists theirs in
    our order; `answer` gives (outputs, maps), both in their order; `change` is for weights that are ordered otherwise.
    """

    build: Callable[[Sizes], nn.Module]
    names: Mapping[str, str]
    inputs: tuple[str, ...] = ("x",)
    answer: Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] | None = None
    change: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)


def attended(layer, *inputs):
    """Give one output and the maps."""
    output, *maps = layer.attend(*inputs)
    return (output,), tuple(maps)


def check(name: str, reference: Reference, tolerance: float = 1e-5) -> None:
    """Hold a layer against a reference: as many parameters, the same outputs, the same maps."""
    folder = FOLDER / name
    if not (folder / "meta.json").is_file():
        pytest.skip(f"reference outputs of {name} are not beside the repository")
    meta = json.loads((folder / "meta.json").read_text())
    weights, tensors = _filled(folder)
    dims = len(next(iter(meta["inputs"].values()))) - 2
    layer = reference.build(Sizes(meta["state_keys"], dims, meta["cls"], meta["inputs"], meta["outputs"])).eval()
    load(layer, weights, reference)
    # What never gets a gradient in theirs does not exist in ours.
    assert sum(p.numel() for p in layer.parameters()) == meta["params"] - sum(meta["unused_params"].values())
    with torch.no_grad():
        outputs, maps = (reference.answer or attended)(layer, *(tensors[key] for key in reference.inputs))
    expected_maps = list(load_file(folder / "attn.safetensors").values())
    for got, key in zip(outputs, meta["outputs"], strict=True):
        close(got, tensors[key], tolerance)
    for got, expected in zip(maps, expected_maps, strict=True):
        close(got.reshape(expected.shape), expected, tolerance)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Hold two tensors against each other, and note the largest difference of this test for the table at the end."""
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)
    test = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split(" ")[0]
    LARGEST[test] = max(LARGEST.get(test, 0.0), float((got - expected).abs().max()))


def load(layer: nn.Module, weights: Mapping[str, Tensor], reference: Reference) -> None:
    """Give every parameter and statistic of a layer its original value.

    Raises:
        KeyError: A parameter of ours stands in no row, or has no counterpart.
    """
    with torch.no_grad():
        for key, value in layer.state_dict().items():
            if key.endswith("num_batches_tracked"):
                continue
            prefix = next(path for path in _paths(key) if path in reference.names)
            found = weights[(reference.names[prefix] + key[len(prefix) :]).removeprefix(".")]
            found = reference.change.get(key, lambda same: same)(found)
            value.copy_(found.reshape(value.shape))


def _paths(key: str) -> list[str]:
    """Give a key and all modules that it lies in, the innermost first."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), -1, -1)]


def _filled(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    spec: Any = importlib.util.spec_from_file_location("golden_fill", FOLDER / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    return fill.weights(folder), fill.tensors(folder)
