"""Grad-CAM: features of the last place-keeping layer, weighed by how they move the answer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from common.attention.base import AttentionModel, Grid
from common.errors import AttentionError
from common.explanations.base import answers, asking, finished, refuse_misfit

TOKENS = ("self-attention", "window", "axial", "neighbourhood")
"""Kinds whose grid is that of the tokens."""


class GradCam:
    """ReLU(Σ_c w_c F_c), w_c the mean of the answer's gradient over places, at the last features that keep places.

    Features are the last output [B, C, h, w] of any submodule, gates left out, or, where the model works on tokens, the
    last LayerNorm whose patches the answer depends on (that before the last attention). One forward and one backward.

    Source: Selvaraju et al. 2017, "Grad-CAM", eq. 1-2.
    """

    def fits(self, model: AttentionModel) -> str:
        """Any model of images fits; one that keeps no place anywhere is refused when it is seen."""
        return ""

    def __call__(self, model: AttentionModel, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Draw the class activation map."""
        refuse_misfit(self, model, images)
        return finished(weighed_features(model, images, targets), images)


def weighed_features(model: AttentionModel, images: Tensor, targets: Tensor | None) -> Tensor:
    """Give the map on the features' own grid, [B, h, w] ≥ 0; all zero where nothing speaks for the answer.

    Raises:
        AttentionError: No submodule keeps places.
    """
    with asking(model), _placed(model) as placed:
        logits = model(images.detach().requires_grad_())
        found = [(output, grid) for output, grid in placed if output is not logits and output.requires_grad]
        score = answers(logits, targets)
        outputs = [output for output, _ in found]
        grads = torch.autograd.grad(score.sum(), outputs, allow_unused=True) if outputs else ()
    for (output, grid), grad in zip(reversed(found), reversed(grads), strict=True):
        features, moves = _laid(output, grid), None if grad is None else _laid(grad, grid)
        if moves is not None and bool(moves.any()):
            weights = moves.mean((2, 3), keepdim=True)
            return (weights * features).sum(1).detach().float().clamp_min(0)
    if not found:
        raise AttentionError(
            f"{type(model).__name__} has no features that keep places. Explanation 'grad-cam' reads [B, C, h, w], or "
            f"tokens behind a LayerNorm; use larger images or another explanation."
        )
    return images.new_zeros(len(images), *images.shape[2:])


def _laid(tensor: Tensor, grid: Grid | None) -> Tensor:
    """Lay tokens [B, N, D] on their grid as [B, D, h, w], a class token left out; features stay."""
    if grid is None:
        return tensor
    patches = tensor[:, tensor.shape[1] - grid[0] * grid[1] :]
    return patches.transpose(1, 2).reshape(len(tensor), tensor.shape[2], *grid)


@contextmanager
def _placed(model: AttentionModel) -> Iterator[list[tuple[Tensor, Grid | None]]]:
    """Keep, in the order in which they come, the outputs that keep places; with the grid where they are tokens."""
    kept: list[tuple[Tensor, Grid | None]] = []
    maps = tuple(site.module for site in model.attention_sites)
    grids = {site.grid for site in model.attention_sites if site.kind in TOKENS and len(site.grid or ()) == 2}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        if output.ndim == 4 and output.shape[1] > 1 and output.shape[2] * output.shape[3] > 1:
            kept.append((output, None))
        elif output.ndim == 3 and isinstance(module, nn.LayerNorm):
            fitting = [grid for grid in grids if grid and output.shape[1] - grid[0] * grid[1] in (0, 1)]
            kept.extend((output, grid) for grid in fitting[:1])

    with ExitStack() as stack:
        for path, module in model.named_modules():
            if path and not any(_inside(path, site) for site in maps):
                stack.callback(module.register_forward_hook(keep).remove)
        yield kept


def _inside(path: str, site: str) -> bool:
    """Say whether a submodule is a gate itself or part of one."""
    return path == site or path.startswith(f"{site}.")
