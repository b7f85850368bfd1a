"""Is the attention healthy? Saturated gates, collapsed rows, sinks, and mass where no organ is.

Measured on the images that the signature rests on, in the same forward pass (`HealthMeter` listens around it).
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.attention.base import AttentionModel, AttentionSite
from common.attention.blocks import images_at_once
from common.attention.gates import CLOSED, OPEN
from common.attention.health_sums import HealthSums
from common.attention.histograms import TINY
from common.attention.pooling import pool_mass
from common.attention.recorder import Recorder
from common.attention.tokens import cls_row
from common.errors import DataError

CELLS = 8
"""Maps are pooled to 8 x 8 cells; the border is the outer ring, a corner the 2 x 2 cells of it."""
PLACES = ("border", "corner-nw", "corner-ne", "corner-sw", "corner-se")
GATES = ("channel-gate", "spatial-gate", "attention-gate", "feature-gate")
ROWS = ("self-attention", "cross-attention", "window", "axial", "neighbourhood")
PLACED = ("spatial-gate", "attention-gate", "feature-gate")


def health_names(model: AttentionModel) -> tuple[str, ...]:
    """Name what is measured on a model, as `site/statistic`; needs no forward pass."""
    return tuple(f"{site.name}/{name}" for site in model.attention_sites for name in _statistics(site))


def _statistics(site: AttentionSite) -> tuple[str, ...]:
    if site.kind in GATES:
        own: tuple[str, ...] = ("saturation",)
    elif site.kind in ROWS:
        own = ("collapse", "sink") if site.kind == "self-attention" else ("collapse",)
    else:
        own = ("collapse",)
    return own + (PLACES if _has_place(site) else ())


def _has_place(site: AttentionSite) -> bool:
    if site.kind == "channel-gate":
        return bool(site.features)
    return site.kind in (*PLACED, "self-attention") and (site.grid is None or len(site.grid) > 1)


def saturation(gates: Tensor) -> Tensor:
    """Share of gates below 0.05 or above 0.95. Shapes: [B, …] -> [B]."""
    flat = gates.flatten(1)
    return ((flat < CLOSED) | (flat > OPEN)).float().mean(1)


def collapse(rows: Tensor) -> Tensor:
    """One less the rows' entropy over log N, of the head where it is least: 0 looks everywhere, 1 at one place.

    The entropy is Rényi's of order 2, -log Σ p²: one logarithm per row, where Shannon's takes one per entry, which cost
    as much as the rest of a transformer's measurement. It is at most Shannon's, and both are extreme together.

    Shapes: [B, n] or [B, G, n] (pooling), [B, heads, N, M], [B, W, heads, n, n] -> [B].
    """
    entropy = -rows.square().sum(-1).clamp_min(TINY).log() / math.log(max(rows.shape[-1], 2))
    if rows.ndim >= 4:
        heads = rows.ndim - 3
        entropy = entropy.transpose(1, heads).flatten(2).mean(2).amin(1)
    else:
        entropy = entropy.reshape(len(rows), -1).mean(1)
    return (1 - entropy).clamp(0, 1)


def branch_collapse(weights: Tensor) -> Tensor:
    """Usage of the most used branch, from 0 (all alike) to 1 (one alone). Shapes: [B, M, C] -> [B]."""
    branches = weights.shape[1]
    return (branches * weights.mean(2).amax(1) - 1) / max(1, branches - 1)


def sink(rows: Tensor) -> Tensor:
    """Most attention that one token receives on average. Shapes: [B, heads, N, N] -> [B]."""
    return rows.mean((1, 2)).amax(1)


def placed_mass(maps: Tensor) -> Tensor:
    """Mass in the outer ring and in each corner of a map, as shares of all mass: [B, 5] in [0, 1], order `PLACES`.

    Shapes: maps [B, h, w], not negative; nothing anywhere counts as uniform.
    """
    raised = maps.clamp_min(0) + TINY
    cells = pool_mass(raised / raised.sum((1, 2), keepdim=True), CELLS)
    inner = cells[:, 1:-1, 1:-1].sum((1, 2))
    corners = [cells[:, rows, columns].sum((1, 2)) for rows in (slice(2), slice(-2, None)) for columns in _ENDS]
    return torch.stack([1 - inner, *corners], 1).clamp(0, 1)


_ENDS = (slice(2), slice(-2, None))


@dataclass(frozen=True, slots=True)
class _Row:
    patients: list[str]
    groups: list[int]
    values: NDArray[np.float64]


class HealthMeter:
    """Listens to every attention site while it is entered; `note` after each forward pass says whose images those were.

    Example:
        with HealthMeter(model, groups=2) as meter:
            model(images)
            meter.note(patients, groups)
        sums = meter.finish()
    """

    def __init__(self, model: AttentionModel, groups: int) -> None:
        """Prepare for images of so many groups (classes)."""
        self.names = health_names(model)
        self._groups = groups
        self._model = model
        self._active: dict[str, Tensor] = {}
        self._recorder = Recorder(model, reduce=self._reduce)
        self._stack = ExitStack()
        self._rows: list[_Row] = []

    def __enter__(self) -> Self:
        for site in self._model.attention_sites:
            if site.kind == "channel-gate" and site.features:
                hook = self._model.get_submodule(site.features).register_forward_hook(self._keep(site.name))
                self._stack.callback(hook.remove)
        self._stack.enter_context(self._recorder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._active.clear()

    def note(self, patients: list[str], groups: list[int]) -> None:
        """Take what the last forward pass showed.

        Raises:
            DataError: Not one patient and one group per image.
            AttentionError: A site stayed silent or its tensor is not what it must be.
        """
        values = torch.cat(list(self._recorder.take().values()), 1).double().cpu().numpy()
        if not len(values) == len(patients) == len(groups):
            raise DataError(
                f"{len(values)} images come with {len(patients)} patients and {len(groups)} classes. Every image needs "
                f"one of each; correct the columns that `data.patient` and `data.label` name."
            )
        self._rows.append(_Row(patients, groups, values))

    def finish(self) -> HealthSums:
        """Give the sums over all patients so far."""
        return HealthSums.of(
            self.names,
            self._groups,
            [name for row in self._rows for name in row.patients],
            [group for row in self._rows for group in row.groups],
            np.concatenate([np.zeros((0, len(self.names))), *(row.values for row in self._rows)]),
        )

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim in (4, 5):
                self._active[name] = output.detach()

        return hook

    def _reduce(self, site: AttentionSite, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        scaled = self._active.pop(site.name, None)
        images = images_at_once(tensor)
        parts = [
            self._part(site, part.float(), None if scaled is None else scaled[start : start + images])
            for start, part in zip(range(0, len(tensor), images), torch.split(tensor, images), strict=True)
        ]
        return torch.cat(parts)

    def _part(self, site: AttentionSite, tensor: Tensor, scaled: Tensor | None) -> Tensor:
        columns = [_OWN[site.kind](tensor)[:, None]]
        if site.kind == "self-attention":
            columns.append(sink(tensor)[:, None])
        if _has_place(site):
            columns.append(placed_mass(self._map(site, tensor, scaled)))
        return torch.cat(columns, 1)

    def _map(self, site: AttentionSite, tensor: Tensor, scaled: Tensor | None) -> Tensor:
        """Give where it looks in the plane, [B, h, w]; the depth of a volume is summed."""
        if scaled is not None:
            found = torch.einsum("bc,bc...->b...", tensor, scaled.float().abs())
        elif site.kind == "self-attention":
            patches = cls_row(tensor) if site.cls else tensor.mean((1, 2))
            found = patches.reshape(-1, *(site.grid or ()))
        else:
            found = tensor.mean(1)
        return found.sum(1) if found.ndim == 4 else found


_OWN: dict[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(GATES, saturation),
    **dict.fromkeys((*ROWS, "pooling"), collapse),
    "branch": branch_collapse,
}
