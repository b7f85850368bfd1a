"""Activations inside a model, seen from outside: what normalisation layers and stages put out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from client.adaptation.batch_norm import TestBatchNorm
from common.attention.base import AttentionLayer, AttentionModel
from common.models.norms import NORMALISATIONS


@contextmanager
def watching(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Keep the output of each submodule of the latest forward pass, gradients and all, while entered."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[path] = output

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def norm_layers(model: nn.Module) -> tuple[str, ...]:
    """Name normalisation layers of the body by path, in order; those inside attention layers belong to these."""
    inside = {id(part) for layer in model.modules() if isinstance(layer, AttentionLayer) for part in layer.modules()}
    kinds = (*NORMALISATIONS, _NormBase, TestBatchNorm)
    return tuple(path for path, part in model.named_modules() if isinstance(part, kinds) and id(part) not in inside)


def stages(model: AttentionModel) -> tuple[tuple[str, ...], ...]:
    """Divide the body into stages from the image to the head, each named by the paths of its submodules.

    A stage is a direct submodule, or an entry of a list of them; single layers join the stage that follows.
    """
    found: list[tuple[str, ...]] = []
    waiting: tuple[str, ...] = ()
    for path, part in _parts(model):
        waiting = (*waiting, path)
        if list(part.children()):
            found.append(waiting)
            waiting = ()
    if waiting:
        found[-1:] = [(*found[-1], *waiting)] if found else [waiting]
    return tuple(found)


def _parts(model: AttentionModel) -> Iterator[tuple[str, nn.Module]]:
    for name, part in model.named_children():
        if name == "head" or not list(part.parameters()):
            continue
        if isinstance(part, (nn.Sequential, nn.ModuleList)) and any(list(child.children()) for child in part):
            yield from ((f"{name}.{index}", child) for index, child in enumerate(part))
        else:
            yield name, part
