"""What guides attention in local training: what a term may know, what it sees of a step, and what it promises."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.attention.base import AttentionModel, AttentionSite
from common.attention.maps import has_place, site_map
from common.attention.prior import Prior
from common.attention.reduction import Reduction, assemble
from common.attention.schema import Schema
from common.data.base import Batch
from common.errors import AttentionError
from common.shift.projected import TAU

TURNED = ("geom", "received_prof")
"""Blocks beside the maps that a flip of the image changes."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Known:
    """What a site knows when a round begins. All of it is constant during the round.

    `prior` and `own` are of the same measurement, at most `attention.every` rounds old, and absent before the first.

    Shapes: own [d], this site's mean signature; classes [K, d], the same for each class that the site has; region
    float32 [H, W] in [0, 1], where what is looked for can be.
    """

    model: AttentionModel
    """The global model as it came."""
    schema: Schema
    prior: Prior | None = None
    own: NDArray[np.float64] | None = None
    classes: NDArray[np.float64] | None = None
    region: Tensor | None = None
    flips: bool = True
    """Whether images are flipped while training: entries that depend on left and right then say nothing."""
    progress: float = 0.0
    """Share of the rounds that are over, in [0, 1]."""
    seed: int = 0

    def told(self) -> Tensor:
        """Say which entries of a signature may be compared with the prior, bool [d].

        Each entry of a projected signature holds something of every block: one that a flip changes spoils all.
        """
        told = torch.ones(self.schema.entries, dtype=torch.bool)
        for block in self.schema.blocks:
            if self.flips and (block.kind == "map" or block.name in TURNED):
                told[block.start : block.start + block.size] = False
        return told.all().expand(self.schema.length) if self.schema.projected else told


class Seen:
    """One training step as a term sees it: the batch and the attention that just fell on it, with gradients."""

    def __init__(
        self,
        batch: Batch,
        sites: tuple[AttentionSite, ...],
        schema: Schema,
        maps: dict[str, Tensor],
        scaled: dict[str, Tensor],
    ) -> None:
        self.batch, self.sites, self.schema, self.maps = batch, sites, schema, maps
        self._scaled = scaled

    @cached_property
    def rows(self) -> Tensor:
        """Signature of each image, float32 [B, d]: `common.attention.signature.signatures` with gradients."""
        reduction = Reduction(self.schema, self.sites)
        parts = [reduction(site, self.maps[site.name]) for site in reduction.sites]
        return assemble(parts, self.schema).float()

    @cached_property
    def picture(self) -> Tensor:
        """Where attention falls on each image, mean over the sites that have a place: float32 [B, H, W], sum 1.

        Raises:
            AttentionError: No site has a place.
        """
        size = (self.batch.images.shape[2], self.batch.images.shape[3])
        placed = [site for site in self.sites if has_place(site)]
        if not placed:
            raise AttentionError(
                "none of the model's attention sites can be shown on an image. Guidance by `anatomy` or `masks` needs "
                "a site that can, such as spatial-gate, se or self-attention; set `model.attention`, or both to 0."
            )
        drawn = [site_map(site, self.maps[site.name], self._scaled, size) for site in placed]
        return torch.stack(drawn).mean(0)


class AgainstPrior:
    """Signatures in the prior's standard deviations from its mean, on the entries that may be compared.

    Shapes: rows [B, d] -> [B, entries].
    """

    def __init__(self, known: Known) -> None:
        assert known.prior is not None  # `needs` says so
        self.told = known.told().nonzero()[:, 0]
        self._mean = torch.tensor(known.prior.mean).float()[self.told]
        self._spread = torch.tensor(known.prior.variance + TAU).sqrt().float()[self.told]

    def __call__(self, rows: Tensor) -> Tensor:
        """Standardise."""
        return (rows[:, self.told.to(rows.device)] - self._mean.to(rows)) / self._spread.to(rows)


class Term(Protocol):
    """Contract: one number per image, that depends on no other image; a step's loss is its mean.

    `needs` names the fields of `Known` without which the term waits.
    """

    needs: ClassVar[tuple[str, ...]]

    def __init__(self, known: Known) -> None: ...

    def __call__(self, seen: Seen) -> Tensor:
        """Give the loss of each image, float32 [B]."""
        ...
