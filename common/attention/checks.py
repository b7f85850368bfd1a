"""What an attention site and its tensor must be; everything else is refused by name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from common.attention.base import AttentionSite
from common.errors import AttentionError

SHAPES = {
    "channel-gate": "[B, C]",
    "spatial-gate": "[B, 1, H, W]",
    "attention-gate": "[B, 1, H, W]",
    "self-attention": "[B, heads, N, N]",
}
ROW_TOLERANCE = 0.02
"""How far from one the rows of a self-attention map may sum: bfloat16 rounds to 1/256."""


def check_sites(model: str, sites: Sequence[AttentionSite]) -> None:
    """Refuse a model without attention sites, with a name twice, an unknown kind, or tokens without a grid.

    Raises:
        AttentionError: As said.
    """
    if not sites:
        raise AttentionError(f"{model} names no attention site. Give the class its `attention_sites`.")
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
        if site.kind == "self-attention" and site.grid is None:
            raise AttentionError(
                f"attention site {site.name!r} of {model} has no token grid. Self-attention needs `grid` = (rows, "
                f"columns); add it in `attention_sites`."
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
        raise AttentionError(
            f"attention site {site.name!r} gives a tensor of shape {tuple(output.shape)}. Allowed for kind {site.kind} "
            f"is {SHAPES[site.kind]}{tokens}{heads}; correct `attention_sites` or the image size."
        )
    return output


def value_bounds(site: AttentionSite, tensor: Tensor) -> Tensor:
    """Give [4]: least and greatest value, least and greatest row sum (1 for gates); NaN goes through.

    It stays on the tensor's device, so that a GPU is not waited for in the middle of a forward pass.
    """
    low, high = torch.aminmax(tensor.float())
    one = torch.ones_like(low)
    if site.kind != "self-attention":
        return torch.stack([low, high, one, one])
    rows = torch.aminmax(tensor.sum(-1, dtype=torch.float32))
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
            f"attention site {site.name!r} has rows that sum to {least:.4g} up to {most:.4g}. Rows of a self-attention "
            f"map sum to one; let `module` name the softmax, before any dropout."
        )


def _tokens(site: AttentionSite) -> int:
    rows, columns = site.grid or (0, 0)
    return rows * columns + int(site.cls)


def _fits(site: AttentionSite, shape: tuple[int, ...]) -> bool:
    if 0 in shape:
        return False
    if site.kind == "channel-gate":
        return len(shape) == 2
    if site.kind != "self-attention":
        return len(shape) == 4 and shape[1] == 1
    heads = site.heads or (shape[1] if len(shape) == 4 else 0)
    return shape[1:] == (heads, _tokens(site), _tokens(site))
