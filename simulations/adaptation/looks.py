"""Where the model looked before and after adaptation: maps of images of patients who were not in the stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.adaptation.base import Adaptation
from common.data.base import Dataset
from common.errors import ConsiliumError
from common.explanations.attention_stability import attention_stability
from simulations.adaptation.bench import Bench
from simulations.adaptation.cells import NONE, PROMISED, Cell, base_name
from simulations.corrupted_site import look
from simulations.gallery import choose_cases, picture

Maps = NDArray[np.float64]
IMAGES, METHODS = 3, 7
MEASURED = 256
"""Images at most that the mean maps and the stability rest on."""


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Maps by method, `none` first; it names no patient.

    Shapes: images uint8 [H, W] or [H, W, 3] each; per method the maps of those images [n, H, W] and the mean map of
    all measured images [H, W]. `rows` has a row per method: how far attention stayed (1 where it did not move).
    """

    title: str
    captions: list[str]
    images: list[NDArray[np.uint8]]
    maps: dict[str, tuple[Maps, Maps]]
    rows: list[dict[str, Any]]


def looks(bench: Bench, cell: Cell, methods: Sequence[str], seed: int) -> Looks | None:
    """Adapt each method on the cell's stream and look again; none where the model's attention has no place.

    Methods that leave the weights alone look where the shipped model does, and have no column.
    """
    judged = bench.stream(cell).judged
    judged = judged.subset(np.arange(min(MEASURED, len(judged))))
    cases = choose_cases(judged, seed, cell.site, IMAGES)
    before = look(bench.model(cell), bench.task, judged).maps
    if before is None:
        return None
    maps, rows = {NONE: (before[cases], before.mean(0))}, []
    # Few columns fit: first the methods that promise to do no harm.
    for name in sorted((name for name in methods if name != NONE), key=lambda name: base_name(name) not in PROMISED):
        method = _adapted(bench, cell.place, name)
        if method is None or not method.adapted() or len(maps) > METHODS:
            continue
        after = look(method.model, bench.task, judged).maps
        assert after is not None
        maps[name] = after[cases], after.mean(0)
        stayed = {key: float(values.mean()) for key, values in attention_stability(before, after).items()}
        rows.append({"method": name, "images": len(judged), **stayed})
    title = f"Attention before ({NONE}) and after adapting on {cell.stream} at {cell.site}, batch {cell.batch}"
    shown = [picture(judged, int(place)) for place in cases]
    return Looks(title, [_caption(judged, int(place)) for place in cases], shown, maps, rows)


def _adapted(bench: Bench, place: Cell, name: str) -> Adaptation | None:
    """Let the stream through the method; none where it does not fit, which its row says already."""
    try:
        return bench.passed(Cell(place.seed, place.training, place.site, place.stream, place.batch, name))
    except ConsiliumError:
        return None


def _caption(data: Dataset, place: int) -> str:
    if data.labels is None:
        return ""
    label = data.labels[place]
    if label.ndim:
        return " + ".join(name for name, known in zip(data.classes, label.tolist(), strict=True) if known)
    return data.classes[int(label)]
