"""One backward pass for everything: gradients of the layers' outputs only, from which each layer's sum is made.

Per layer the squared norm of each patient's gradient is computed, the norms give the clip factors, and the factors
weigh what was kept. No gradient of a weight is computed twice and none that is not needed ("book-keeping").

Source: Bu et al. 2023, "Differentially Private Optimization on Large Model at Small Cost", with a rule of time in
place of theirs of memory for when a norm is taken without the gradient (ghost norms, Goodfellow 2015, Li et al.
2022).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from client.private.base import Clip, Clipped, ImageLosses, learning, shares
from client.private.checks import refuse_mixing
from client.private.rules import RULES, Rows, any_layer
from common.data.base import Batch
from common.errors import UnsupportedModelError

GHOST = 0.7
"""A norm from Gram matrices costs T²(d + p) and more; below this share of d·p·T it is the faster way."""


@dataclass(slots=True)
class Caught:
    """What one layer was given and gave, of one forward pass."""

    layer: nn.Module
    given: list[Tensor] = field(default_factory=list)
    gave: list[Tensor] = field(default_factory=list)


def one_backward(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
    """See `Engine`. Raises UnsupportedModelError for a layer that is called twice, folds the batch, or holds parameters
    beside other layers that do."""
    refuse_mixing(model)
    with catching(model) as caught:
        logits = model(batch.images)
    used = _used(caught, len(patients))
    total = (losses(logits, batch) * shares(patients, batch.images)).sum()
    gradients = torch.autograd.grad(total, [each.gave[0] for each in used.values()], allow_unused=True)
    count = int(patients.max()) + 1
    parts: dict[str, _Part] = {}
    with torch.no_grad():
        for (name, each), gradient in zip(used.items(), gradients, strict=True):
            if gradient is not None:
                parts[name] = _part(each.layer, each.given[0].detach(), gradient, patients, count)
        squares = torch.stack([part.squares for part in parts.values()])
        norms = squares.sum(0).sqrt()
        factors = clip.factors(norms)
        found = {
            f"{name}.{leaf}" if name else leaf: value
            for name, part in parts.items()
            for leaf, value in part.weighted(factors).items()
        }
    return Clipped([found.get(name, torch.zeros_like(parameter)) for name, parameter in learning(model).items()], norms)


@contextmanager
def catching(model: nn.Module) -> Iterator[dict[str, Caught]]:
    """Listen to every layer that has parameters of its own that learn."""
    caught: dict[str, Caught] = {}
    handles = []
    for name, module in model.named_modules():
        own = [each for each in module.parameters(recurse=False) if each.requires_grad]
        if own:
            _check_leaf(name, module, len(own))
            caught[name] = Caught(module)
            handles.append(module.register_forward_hook(_hook(caught[name])))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, slots=True)
class _Part:
    """One layer's share: squared norms [P], and how to weigh its gradients by factors [P]."""

    squares: Tensor
    weighted: Callable[[Tensor], Rows]


def _part(layer: nn.Module, given: Tensor, gradient: Tensor, patients: Tensor, count: int) -> _Part:
    if type(layer) is nn.Linear and count == len(patients) and gradient.ndim > 2 and _ghostly(layer, given):
        return _ghost(layer, given.flatten(1, -2), gradient.flatten(1, -2))
    rows = RULES.get(type(layer), any_layer)(layer, given, gradient)
    if count < len(patients):
        rows = {name: row.new_zeros(count, *row.shape[1:]).index_add_(0, patients, row) for name, row in rows.items()}
    squares = torch.stack([row.flatten(1).square().sum(1) for row in rows.values()]).sum(0)
    return _Part(squares, lambda factors: {name: _weigh(row, factors) for name, row in rows.items()})


def _ghostly(layer: nn.Linear, given: Tensor) -> bool:
    tokens = given[0].numel() // layer.in_features
    return tokens * (layer.in_features + layer.out_features) < GHOST * layer.in_features * layer.out_features


def _ghost(layer: nn.Linear, given: Tensor, gradient: Tensor) -> _Part:
    """‖Σ g ⊗ x‖² = Σ (G Gᵀ)∘(X Xᵀ), without the gradient. Shapes: given [P, T, p], gradient [P, T, d]."""
    gram = torch.bmm(given, given.transpose(1, 2)) * torch.bmm(gradient, gradient.transpose(1, 2))
    squares = gram.sum((1, 2)).clamp_min(0)
    if layer.bias is not None:
        squares = squares + gradient.sum(1).square().sum(1)

    def weighted(factors: Tensor) -> Rows:
        flat = _without(gradient, factors) * factors[:, None, None]
        flat = flat.flatten(0, 1)
        rows = {"weight": flat.T @ _without(given, factors).flatten(0, 1)}
        return rows if layer.bias is None else {**rows, "bias": flat.sum(0)}

    return _Part(squares, weighted)


def _weigh(row: Tensor, factors: Tensor) -> Tensor:
    return torch.mv(_without(row, factors).flatten(1).T, factors).view(row.shape[1:])


def _without(rows: Tensor, factors: Tensor) -> Tensor:
    """Put zeros where a patient does not count, for zero times infinity is not zero; mostly there is nothing to do."""
    if bool(factors.all()):
        return rows
    return torch.where((factors > 0).view(-1, *[1] * (rows.ndim - 1)), rows, torch.zeros_like(rows))


def _hook(caught: Caught) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            caught.given.append(inputs[0])
            caught.gave.append(output)
        else:
            raise UnsupportedModelError(
                f"a {type(module).__name__} takes {len(inputs)} inputs. Engine one-backward takes layers of one tensor "
                f"apart; set `privacy.engine` to per-sample."
            )

    return hook


def _check_leaf(name: str, module: nn.Module, own: int) -> None:
    everything = sum(parameter.requires_grad for parameter in module.parameters())
    if everything != own:
        raise UnsupportedModelError(
            f"layer {name or 'the model'!r} ({type(module).__name__}) holds parameters itself and in layers below it. "
            f"Move its own into a layer by themselves, or set `privacy.engine` to per-sample."
        )


def _used(caught: dict[str, Caught], images: int) -> dict[str, Caught]:
    used = {name: each for name, each in caught.items() if each.gave}
    for name, each in used.items():
        if len(each.gave) > 1 or len(each.given[0]) != images or len(each.gave[0]) != images:
            found = f"is called {len(each.gave)} times" if len(each.gave) > 1 else "folds the images of a batch"
            raise UnsupportedModelError(
                f"layer {name!r} ({type(each.layer).__name__}) {found}. Engine one-backward takes layers that map each "
                f"image once; set `privacy.engine` to per-sample."
            )
    return used
