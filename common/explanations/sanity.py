"""Sanity: a map that stays when the weights are lost, or attention that changes no answer, explains nothing."""

from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.attention.base import AttentionModel, AttentionSite
from common.attention.checks import GATES
from common.attention.histograms import TINY
from common.attention.signature import measuring
from common.explanations.alike import spearman
from common.explanations.base import Explanation
from common.explanations.faithfulness import Score
from common.seeds import derive, torch_generator

INSENSITIVE = 0.5
"""A map that is still so alike when the head and the last stage are lost does not depend on what was learnt."""
IDLE = 0.01
"""Where neither loss of attention moves a probability by more on average, attention explains nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Cascade:
    """`stages`: what was lost, from the head down, each with all before it; `alike`: Spearman with the map before, [S].

    `insensitive`: whether the map is still alike after the head and the last stage are lost.
    """

    stages: tuple[str, ...]
    alike: NDArray[np.float64]
    insensitive: bool


def cascade(explain: Explanation, model: AttentionModel, images: Tensor, targets: Tensor | None, seed: int) -> Cascade:
    """Lose what was learnt, one top-level part after the other from the head down, and explain again.

    Weights are drawn as at the start of training (`reset_parameters`), or from N(0, 0.02²) where a part has no such
    method. The model itself stays as it is; a copy is taken apart.

    Source: Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.1 (cascading randomisation).

    Raises:
        AttentionError: As the explanation does.
    """
    broken = deepcopy(model)
    before = explain(model, images, targets).cpu().numpy()
    stages, alike = [], []
    for name, part in reversed(learnt(broken)):
        forget(part, derive(seed, "forget", name))
        if isinstance(part, nn.LayerNorm | nn.GroupNorm):  # belongs to the stage that it follows
            continue
        stages.append(name)
        alike.append(float(spearman(before, explain(broken, images, targets).cpu().numpy()).mean()))
    return Cascade(tuple(stages), np.array(alike), alike[min(1, len(alike) - 1)] > INSENSITIVE)


def learnt(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Give the parts that hold parameters, first to last: children, those of a Sequential or ModuleList one by one."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        several = isinstance(child, nn.Sequential | nn.ModuleList) and len(child) > 1
        inner = [(f"{name}.{key}", part) for key, part in child.named_children()] if several else [(name, child)]
        parts += [(key, part) for key, part in inner if any(True for _ in part.parameters())]
    return parts


def forget(part: nn.Module, seed: int) -> None:
    """Draw every parameter of a part anew."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in part.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset:
                reset()
            else:
                for parameter in module.parameters(recurse=False):
                    parameter.normal_(0, 0.02)


@dataclass(frozen=True, slots=True)
class Matters:
    """Mean |Δp| when every map is replaced by an even one, and by one whose places are shuffled."""

    uniform: float
    permuted: float

    @property
    def idle(self) -> bool:
        """Whether attention could be anything: then it is no explanation of this model's answers."""
        return max(self.uniform, self.permuted) <= IDLE


def attention_matters(model: AttentionModel, score: Score, images: Tensor, seed: int) -> Matters:
    """Replace what every attention site gives and see how the answer moves.

    Even: each row the same over all it may see, each gate its image's mean. Shuffled: keys, places or channels in
    another order, the same for all images. What a row may not see (a weight of exactly zero) stays unseen when even.

    Source: Jain & Wallace 2019, "Attention is not Explanation", section 4.2.1 (permutation).

    Raises:
        AttentionError: The model names no attention site, as the recorder says.
    """
    with measuring(model):
        before = score(images)
        even = _moved(model, score, images, before, lambda site, tensor: level(site, tensor))
        random = torch_generator(seed, "shuffle")
        shuffled = _moved(model, score, images, before, lambda site, tensor: shuffle(site, tensor, random))
    return Matters(even, shuffled)


def _moved(
    model: AttentionModel,
    score: Score,
    images: Tensor,
    before: Tensor,
    change: Callable[[AttentionSite, Tensor], Tensor],
) -> float:
    def hook(site: AttentionSite) -> Callable[[nn.Module, Any, Any], Tensor]:
        return lambda module, inputs, output: change(site, output)

    with ExitStack() as stack:
        for switch in [module for module in model.modules() if hasattr(module, "explicit")]:
            stack.callback(setattr, switch, "explicit", switch.explicit)
            switch.explicit = True  # type: ignore[assignment]
        for site in model.attention_sites:
            stack.callback(model.get_submodule(site.module).register_forward_hook(hook(site)).remove)
        return float((score(images) - before).abs().double().mean())


def level(site: AttentionSite, tensor: Tensor) -> Tensor:
    """Make a site's map even."""
    if site.kind in GATES:
        return tensor.flatten(1).mean(1).reshape(-1, *[1] * (tensor.ndim - 1)).expand_as(tensor)
    axis = 1 if site.kind == "branch" else -1
    seen = (tensor > 0).to(tensor)
    return seen / seen.sum(axis, keepdim=True).clamp_min(TINY)


def shuffle(site: AttentionSite, tensor: Tensor, random: torch.Generator) -> Tensor:
    """Put a site's map in another order along its keys, places, channels or branches."""
    if site.kind in ("spatial-gate", "attention-gate", "feature-gate"):
        flat = tensor.flatten(2)
        order = torch.randperm(flat.shape[2], generator=random).to(tensor.device)
        return flat[:, :, order].reshape(tensor.shape)
    axis = 1 if site.kind == "branch" else tensor.ndim - 1
    order = torch.randperm(tensor.shape[axis], generator=random).to(tensor.device)
    return tensor.index_select(axis, order)
