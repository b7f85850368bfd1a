"""Grad-CAM: features of the last place-keeping layer, weighed by how they move the answer."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionModel, Grid
from common.errors import AttentionError
from common.explanations.base import answers, asked, asking, finished, refuse_misfit

TOKENS = ("self-attention", "window", "axial", "neighbourhood")
"""Kinds whose grid is that of the tokens."""


class GradCam:
    """ReLU(Σ_c w_c F_c), w_c the mean of the answer's gradient over places, at the last features that keep places.

    Features are the last output [B, C, h, w] of any submodule, or, where the model works on tokens, the last LayerNorm
    whose patches the answer depends on (with a class token that before the last attention). Gates, and what goes on
    inside an attention layer, are no features. One forward and one backward.

    Source: Selvaraju et al. 2017, "Grad-CAM", eq. 1-2.
    """

    def fits(self, model: AttentionModel) -> str:
        """Any model of images fits; one that keeps no place anywhere is refused when it is seen."""
        return ""

    def __call__(self, model: AttentionModel, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Draw the class activation map."""
        refuse_misfit(self, model, images, targets)
        return finished(weighed_features(model, images, targets), images)


def weighed_features(model: AttentionModel, images: Tensor, targets: Tensor | None) -> Tensor:
    """Give the map, resized to the images; all zero where nothing speaks for the answer.

    Each image has its own last features: those that its answer depends on. So no other image changes its map.

    Shapes: images [B, C, H, W] -> float32 [B, H, W] ≥ 0.

    Raises:
        AttentionError: No submodule keeps places.
    """
    with asking(model), _placed(model) as placed:
        logits = model(asked(images))
        found = [(output, grid) for output, grid in placed if output is not logits and output.requires_grad]
        score = answers(logits, targets)
        outputs = [output for output, _ in found]
        grads: Sequence[Tensor | None] = torch.autograd.grad(score.sum(), outputs, allow_unused=True) if outputs else ()
    if not found:
        raise AttentionError(
            f"{type(model).__name__} has no features that keep places. Explanation 'grad-cam' reads [B, C, h, w], or "
            f"tokens behind a LayerNorm; use larger images or another explanation."
        )
    maps = images.new_zeros(len(images), *images.shape[2:], dtype=torch.float32)
    waiting = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for (output, grid), grad in zip(reversed(found), reversed(grads), strict=True):
        if grad is None:
            continue
        moves = _laid(grad, grid)
        settled = waiting & moves.flatten(1).any(1)
        if bool(settled.any()):
            maps = torch.where(settled[:, None, None], _activation(_laid(output, grid), moves, maps.shape[1:]), maps)
            waiting = waiting & ~settled
    return maps


def _activation(features: Tensor, moves: Tensor, size: torch.Size) -> Tensor:
    """Give ReLU(Σ_c w_c F_c) at a size. Shapes: features and gradient [B, C, h, w] -> [B, *size]."""
    coarse = (moves.mean((2, 3), keepdim=True) * features).sum(1).detach().float().clamp_min(0)
    return F.interpolate(coarse[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _laid(tensor: Tensor, grid: Grid | None) -> Tensor:
    """Lay tokens [B, N, D] on their grid as [B, D, h, w], a class token left out; features stay."""
    if grid is None:
        return tensor
    patches = tensor[:, tensor.shape[1] - grid[0] * grid[1] :]
    return patches.transpose(1, 2).reshape(len(tensor), tensor.shape[2], *grid)


@contextmanager
def _placed(model: AttentionModel) -> Iterator[list[tuple[Tensor, Grid | None]]]:
    """Keep, in the order in which they come, the outputs that keep places; with the grid where they are tokens.

    Tokens lie on the grid of a site, or of the features that they were made of.
    """
    kept: list[tuple[Tensor, Grid | None]] = []
    known = {site.grid for site in model.attention_sites if site.kind in TOKENS and len(site.grid or ()) == 2}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        if output.ndim == 4 and output.shape[1] > 1 and output.shape[2] * output.shape[3] > 1:
            kept.append((output, None))
        elif output.ndim == 3 and isinstance(module, nn.LayerNorm):
            grids = [*known, *(tuple(other.shape[2:]) for other, grid in kept if grid is None)]
            fitting = [grid for grid in grids if grid and output.shape[1] - grid[0] * grid[1] in (0, 1)]
            kept.extend((output, grid) for grid in fitting[:1])

    with ExitStack() as stack:
        for module in _outside(model):
            stack.callback(module.register_forward_hook(keep).remove)
        yield kept


def _outside(model: AttentionModel) -> list[nn.Module]:
    """Give the submodules whose output may be features: none inside a gate or an attention layer."""
    layers = {path: module for path, module in model.named_modules() if isinstance(module, AttentionLayer)}
    closed = [site.module for site in model.attention_sites]
    closed += [path for path, layer in layers.items() if layer.takes not in ("features", "skip")]
    return [
        module
        for path, module in model.named_modules()
        if path
        and not any(path == other or path.startswith(f"{other}.") for other in closed)
        and not any(path.startswith(f"{layer}.") for layer in layers)
    ]
