"""Listens to the layers of a model while it runs: what each was given, and where its output stands in the graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from common.errors import UnsupportedModelError


@dataclass(slots=True)
class Caught:
    """One layer in one forward pass.

    `gave` are edges of the graph and not tensors: a later change in place moves a tensor on to another edge.
    """

    layer: nn.Module
    given: list[Tensor] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    gave: list[GradientEdge] = field(default_factory=list)
    images: list[int] = field(default_factory=list)


@contextmanager
def catching(model: nn.Module) -> Iterator[dict[str, Caught]]:
    """Listen to every layer that has parameters of its own that learn.

    Raises:
        UnsupportedModelError: A layer shares a parameter with another, or holds some beside layers that do.
    """
    caught: dict[str, Caught] = {}
    owners: dict[nn.Parameter, str] = {}
    handles = []
    for name, module in model.named_modules():
        own = [each for each in module.parameters(recurse=False) if each.requires_grad]
        if own:
            _check_leaf(name, module, own)
            for parameter in own:
                _check_owner(owners.setdefault(parameter, name), name)
            caught[name] = Caught(module)
            handles.append(module.register_forward_hook(_hook(name, caught[name]), with_kwargs=True))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def used(caught: dict[str, Caught], images: int) -> dict[str, Caught]:
    """Give the layers that ran and have a gradient.

    Raises:
        UnsupportedModelError: One ran twice, folds the batch, or was given what changed afterwards.
    """
    found = {name: each for name, each in caught.items() if each.gave}
    for name, each in found.items():
        said = ""
        if len(each.gave) > 1:
            said = f"is called {len(each.gave)} times"
        elif len(each.given[0]) != images or each.images[0] != images:
            said = "folds the images of a batch"
        elif each.given[0]._version != each.versions[0]:
            said = "was given what something later changes in place"
        if said:
            raise UnsupportedModelError(
                f"layer {name!r} ({type(each.layer).__name__}) {said}. Engine one-backward takes layers that map each "
                f"image once; set `privacy.engine` to per-sample."
            )
    return found


def _hook(name: str, caught: Caught) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        tensors = isinstance(output, Tensor) and len(inputs) == 1 and isinstance(inputs[0], Tensor)
        if not tensors or named:
            raise UnsupportedModelError(
                f"layer {name!r} ({type(module).__name__}) takes {len(inputs) + len(named)} inputs or gives more than "
                f"a tensor. Engine one-backward takes layers of one tensor apart; set `privacy.engine` to per-sample."
            )
        if output.requires_grad:  # not so under no_grad, where nothing is learnt
            caught.given.append(inputs[0])
            caught.versions.append(inputs[0]._version)
            caught.gave.append(get_gradient_edge(output))
            caught.images.append(len(output))

    return hook


def _check_leaf(name: str, module: nn.Module, own: list[nn.Parameter]) -> None:
    below = [each for each in module.parameters() if each.requires_grad and not any(each is mine for mine in own)]
    if below:
        raise UnsupportedModelError(
            f"layer {name or 'the model'!r} ({type(module).__name__}) holds parameters itself and in layers below it. "
            f"Move its own into a layer by themselves, or set `privacy.engine` to per-sample."
        )


def _check_owner(first: str, name: str) -> None:
    if first != name:
        raise UnsupportedModelError(
            f"layers {first!r} and {name!r} share a parameter. Engine one-backward takes layers apart one by one; set "
            f"`privacy.engine` to per-sample."
        )
