"""What an attention site and its tensor must be; everything else is refused by name."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from common.attention.base import AttentionSite
from common.errors import AttentionError

SHAPES = {
    "channel-gate": "[B, C]",
    "spatial-gate": "[B, 1, *S]",
    "attention-gate": "[B, 1, *S]",
    "feature-gate": "[B, C, *S]",
    "branch": "[B, M, C]",
    "self-attention": "[B, heads, N, N]",
    "cross-attention": "[B, heads, N, M]",
    "window": "[B, W, heads, n, n]",
    "axial": "[B, L, heads, n, n]",
    "neighbourhood": "[B, heads, N, K]",
    "pooling": "[B, N] or [B, G, n]",
}
GATES = ("channel-gate", "spatial-gate", "attention-gate", "feature-gate")
NEEDED: dict[str, tuple[str, ...]] = {
    "self-attention": ("grid",),
    "window": ("grid", "window"),
    "axial": ("grid",),
    "neighbourhood": ("grid", "window"),
}
"""What a kind cannot do without; its tensor is checked against it."""
ROW_TOLERANCE = 0.02
"""How far from one the rows of a self-attention map may sum: bfloat16 rounds to 1/256."""


def check_sites(model: str, sites: Sequence[AttentionSite]) -> None:
    """Refuse a model without attention sites, with a name twice, an unknown kind, or tokens without a grid.

    Raises:
        AttentionError: As said.
    """
    if not sites:
        raise AttentionError(
            f"{model} names no attention site, so there is nothing to measure. Allowed is any layer of "
            f"`consilium list attention` but 'none' in `model.attention`; a new class needs its `attention_sites`."
        )
    names = [site.name for site in sites]
    for site in sites:
        if names.count(site.name) > 1:
            raise AttentionError(
                f"{model} names the attention site {site.name!r} twice. Names are unique; rename one in "
                f"`attention_sites`."
            )
        if site.kind not in SHAPES:
            raise AttentionError(
                f"attention site {site.name!r} of {model} is of kind {site.kind!r}. Allowed: {', '.join(SHAPES)}. "
                f"Correct `kind` in `attention_sites`."
            )
        for field in NEEDED.get(site.kind, ()):
            if getattr(site, field) is None:
                raise AttentionError(
                    f"attention site {site.name!r} of {model} has no {field}. Kind {site.kind} needs `{field}` = one "
                    f"size per axis, such as (rows, columns); add it in `attention_sites`."
                )


def check_tensor(site: AttentionSite, output: Any) -> Tensor:
    """Give the output back if its shape fits the site's kind.

    Raises:
        AttentionError: It is no tensor or has another shape.
    """
    if not isinstance(output, Tensor):
        raise AttentionError(
            f"attention site {site.name!r}: the submodule {site.module!r} gives a {type(output).__name__}. Allowed is "
            f"one tensor {SHAPES[site.kind]}; let `module` name the submodule that gives it."
        )
    if not _fits(site, tuple(output.shape)):
        tokens = "" if site.grid is None else f" with N = {_tokens(site)}"
        heads = f" and {site.heads} heads" if site.heads else ""
        branches = f" with M = {site.branches}" if site.branches else ""
        raise AttentionError(
            f"attention site {site.name!r} gives a tensor of shape {tuple(output.shape)}. Allowed for kind {site.kind} "
            f"is {SHAPES[site.kind]}{tokens}{heads}{branches}; correct `attention_sites` or the image size."
        )
    return output


def value_bounds(site: AttentionSite, tensor: Tensor) -> Tensor:
    """Give [4]: least and greatest value, least and greatest row sum (1 for gates); NaN goes through.

    It stays on the tensor's device, so that a GPU is not waited for in the middle of a forward pass.
    """
    low, high = torch.aminmax(tensor.float())
    one = torch.ones_like(low)
    if site.kind in GATES:
        return torch.stack([low, high, one, one])
    rows = torch.aminmax(tensor.sum(1 if site.kind == "branch" else -1, dtype=torch.float32))
    return torch.stack([low, high, rows.min, rows.max])


def check_values(site: AttentionSite, bounds: Tensor) -> None:
    """Refuse values that are not finite or lie outside [0, 1], and rows that do not sum to one.

    Raises:
        AttentionError: As said.
    """
    low, high, least, most = bounds.tolist()
    if not (low >= 0 and high <= 1 + 1e-6):
        raise AttentionError(
            f"attention site {site.name!r} holds values from {low:.4g} to {high:.4g}. Allowed is [0, 1], finite; NaN "
            f"means that the weights diverged (lower the learning rate), other values that `module` is not the gate."
        )
    if not (least >= 1 - ROW_TOLERANCE and most <= 1 + ROW_TOLERANCE):
        raise AttentionError(
            f"attention site {site.name!r} has rows that sum to {least:.4g} up to {most:.4g}. Rows of kind "
            f"{site.kind} sum to one; let `module` name the softmax, before any dropout."
        )


def _tokens(site: AttentionSite) -> int:
    return math.prod(site.grid or (0,)) + int(site.cls)


def _fits(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    return 0 not in shape and _FITS[site.kind](site, shape)


def _map_fits(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    return _gates_fit(site, shape) and shape[1] == 1


def _gates_fit(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    """Whether there are as many axes as the grid has; their sizes follow the image."""
    return len(shape) in ((4, 5) if site.grid is None else (2 + len(site.grid),))


def _tokens_fit(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    heads = site.heads or (shape[1] if len(shape) == 4 else 0)
    return shape[1:] == (heads, _tokens(site), _tokens(site))


def _cross_fits(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    return (
        len(shape) == 4
        and site.heads in (0, shape[1])
        and (site.grid is None or shape[2] == _tokens(site))
        and (site.keys is None or shape[3] == math.prod(site.keys))
    )


def _windows_fit(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    grid, window = site.grid or (), site.window or ()
    count = math.prod(-(-side // step) for side, step in zip(grid, window, strict=True))
    inside = math.prod(window)
    return len(shape) == 5 and site.heads in (0, shape[2]) and shape[1::2] == (count, inside) and shape[4] == inside


def _lines_fit(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    grid = site.grid or (1,)
    side = grid[site.axis]
    lines = math.prod(grid) // side
    return len(shape) == 5 and site.heads in (0, shape[2]) and (shape[1], *shape[3:]) == (lines, side, side)


def _neighbours_fit(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    wanted = (math.prod(site.grid or (0,)), math.prod(site.window or (0,)))
    return len(shape) == 4 and site.heads in (0, shape[1]) and shape[2:] == wanted


_FITS: dict[str, Callable[[AttentionSite, tuple[int, ...]], bool]] = {
    "channel-gate": lambda site, shape: len(shape) == 2,
    "spatial-gate": _map_fits,
    "attention-gate": _map_fits,
    "feature-gate": _gates_fit,
    "branch": lambda site, shape: len(shape) == 3 and shape[1] > 1 and site.branches in (0, shape[1]),
    "self-attention": _tokens_fit,
    "cross-attention": _cross_fits,
    "window": _windows_fit,
    "axial": _lines_fit,
    "neighbourhood": _neighbours_fit,
    "pooling": lambda site, shape: len(shape) in (2, 3),
}
