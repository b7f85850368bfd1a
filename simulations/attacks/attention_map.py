"""Reconstruction from released attention: where is the lesion of this patient?"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from common.attention.base import AttentionModel
from common.attention.maps import attention_maps
from common.attention.signature import signatures
from common.data.base import Dataset
from common.errors import DataError
from common.seeds import generator
from simulations.attacks.claim import Claim
from simulations.attacks.decoder import CELLS, MAP_SIDE, heat, learnt
from simulations.attacks.finding import Finding, Findings
from simulations.attacks.intervals import share
from simulations.attacks.private_sum import PrivateSum

Floats = NDArray[np.float64]
BATCH = 32
FEWEST = 10


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What was released of some patients, and where their lesions are.

    `sites` says that the features are so many maps of 14 x 14, side by side, whose places the attacker may use; 0 that
    they have none.

    Shapes: features float64 [N, d]; masks bool [N, H, W], H = W, each with a lesion.

    Raises:
        DataError: Fewer than ten patients, shapes that do not fit, or a mask without a lesion.
    """

    features: Floats
    masks: NDArray[np.bool_]
    sites: int = 0

    def __post_init__(self) -> None:
        shown = len(self.masks) >= FEWEST and self.masks.reshape(len(self.masks), -1).any(axis=1).all()
        if len(self.features) != len(self.masks) or not shown or self.masks.shape[1] != self.masks.shape[2]:
            raise DataError(
                f"{len(self.features)} patients come with masks of shape {self.masks.shape}. Needed are {FEWEST} or "
                f"more square ones, one each, with a lesion in every one; leave healthy patients out."
            )


def attention_map(name: str, known: Seen, victims: Seen, claim: Claim) -> Findings:
    """Locate the victims' lesions from what was released of them.

    The attacker learns, on patients of his own, from what is released to where lesions are, and points at the peak of
    what he predicts. He succeeds when he points within one cell (a sixteenth of the side) of the centre of a lesion.
    The control points, for each victim, with the release of every other one in turn. The claim bounds success from the
    best blind guess: the one point of the grid, chosen in hindsight, that hits most victims.

    Args:
        name: What was released.
        known: The attacker's own patients.
        victims: Whom he attacks.
        claim: What the release keeps of each victim.
    """
    side = victims.masks.shape[-1]
    decode = learnt(known.features, heat(known.masks), known.sites)
    points = peaks(decode(victims.features), side)
    centres = [lesion_centres(mask) for mask in victims.masks]
    distance = distances(points, centres)
    near = distance <= side / CELLS
    count, own = len(near), np.eye(len(near), dtype=bool)
    blind = float((distances(grid_points(side), centres) <= side / CELLS).mean(axis=1).max())
    hits = int(near[own].sum())
    return (
        Finding(
            name=f"attention-map {name}",
            measure="share of lesions located within a sixteenth of the side",
            success=hits / count,
            interval=share(hits, count),
            baseline=float(near[~own].mean()),
            claimed_bound=claim.reach(blind),
            samples=count,
            details={
                "median error in pixels": float(np.median(distance[own])),
                "median error of the control": float(np.median(distance[~own])),
                "side in pixels": side,
                "best blind guess": blind,
                "known patients": len(known.masks),
            },
        ),
    )


def grid_points(side: int) -> Floats:
    """Give the middle (row, column) of each cell in pixels, the first pixel's middle being 0. -> [CELLS², 2]."""
    middle = (np.arange(CELLS) + 0.5) * side / CELLS - 0.5
    return np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(-1, 2)


def peaks(predicted: Floats, side: int) -> Floats:
    """Give the middle of the cell with the highest prediction. [N, CELLS²] -> [N, 2]."""
    return np.asarray(grid_points(side)[predicted.argmax(axis=1)])


def lesion_centres(mask: NDArray[np.bool_]) -> Floats:
    """Give the centre (row, column) of each lesion, which are apart where no pixels touch. [H, W] -> [L, 2]."""
    apart, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return np.array(ndimage.center_of_mass(mask, apart, np.arange(1, count + 1)))


def distances(points: Floats, centres: list[Floats]) -> Floats:
    """Give how far each point lies from the nearest lesion of each patient. [P, 2], N of [L, 2] -> [P, N]."""
    return np.stack([np.linalg.norm(points[:, None] - each, axis=-1).min(axis=1) for each in centres], axis=1)


def seen_alone(rows: Floats, private_sum: PrivateSum) -> Floats:
    """Release each patient's row by itself, as one sees it who knows all others of a cohort. [N, d] -> [N, d]."""
    return np.stack([private_sum(row[None]) for row in rows])


def seen_pooled(rows: Floats, cohort: int, private_sum: PrivateSum, seed: int) -> Floats:
    """Release for each patient the sum of a cohort of his, he and others drawn from all. [N, d] -> [N, d]."""
    sums = []
    for place in range(len(rows)):
        others = np.delete(np.arange(len(rows)), place)
        drawn = generator(seed, "pooled", place).choice(others, size=min(cohort - 1, len(others)), replace=False)
        sums.append(private_sum(rows[np.append(drawn, place)]) / (len(drawn) + 1))
    return np.stack(sums)


def with_lesion(data: Dataset) -> Dataset:
    """Take the first image of each patient that shows a lesion.

    Raises:
        DataError: There are no masks.
    """
    if data.masks is None:
        raise DataError(f"{data.name}: there are no masks to check a location against. Attack data with masks.")
    rows = np.flatnonzero(data.masks.reshape(len(data), -1).any(axis=1))
    _, first = np.unique(data.patients[rows], return_index=True)
    return data.subset(rows[first])


def map_rows(model: AttentionModel, data: Dataset) -> Floats:
    """Give each image's attention maps at 14 x 14, of all sites side by side, each of sum 1. -> [N, sites · 196].

    Raises:
        DataError: No attention of the model has a place.
    """
    device = next(model.parameters()).device
    rows = []
    for start in range(0, len(data), BATCH):
        images = data.batch(np.arange(start, min(start + BATCH, len(data))), device).images
        maps = attention_maps(model, images)
        if not maps:
            raise DataError("no attention of this model has a place on the image. Attack its signature instead.")
        small = [F.adaptive_avg_pool2d(each[:, None], MAP_SIDE).flatten(1) for each in maps.values()]
        rows.append(torch.cat([each / each.sum(1, keepdim=True) for each in small], dim=1).double().cpu().numpy())
    return np.concatenate(rows)


def signature_rows(model: AttentionModel, data: Dataset) -> Floats:
    """Give each image's signature. -> [N, d]."""
    device = next(model.parameters()).device
    parts = np.array_split(np.arange(len(data)), max(1, -(-len(data) // BATCH)))
    return np.concatenate([signatures(model, data.batch(part, device).images).cpu().numpy() for part in parts])
