"""Which statistics each kind of attention has, in the order in which the signature takes them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from common.attention.bags import BagWeights, BranchWeights
from common.attention.base import AttentionSite, Grid, Kind
from common.attention.gates import ChannelGates, FeatureGates, SpatialGates
from common.attention.pooling import map_cells
from common.attention.rows import AxialMaps, CrossMaps, NeighbourMaps, WindowMaps
from common.attention.tokens import TokenMaps

BlockKind = Literal["histogram", "map", "shares", "scalars", "profile"]
SIMPLEX: tuple[BlockKind, ...] = ("histogram", "map", "shares")
"""Kinds whose entries are a probability vector: over ordered bins, over cells, over things without an order."""
PER_HEAD, PER_BRANCH, PER_CELL = 0, -1, -2
CHUNK = {"cpu": 2**19, "cuda": 2**26}
"""Values that are worked on at a time: on a CPU temporaries stay in its cache, on a GPU memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One statistic: a method of the kind's view that gives [B, size].

    Histograms, maps and shares are probability vectors; scalars and profiles have entries in [0, 1]. Size `PER_HEAD`
    and `PER_BRANCH` stand for one entry per head and branch, `PER_CELL` for a map's. `cls` says whether it needs (True)
    or excludes (False) a class token; `keyed` that it lies on the grid of the keys and needs it;
    `chained` that it is made of all layers with a class token on one grid (`rolled_map.py`, no method of the view), and
    stands at the last of them.
    """

    name: str
    kind: BlockKind
    size: int
    cls: bool | None = None
    keyed: bool = False
    chained: bool = False

    def length(self, site: AttentionSite) -> int:
        """How many entries it has at a site; 0 where it does not exist."""
        if self.cls is not None and self.cls != site.cls:
            return 0
        if self.keyed and site.keys is None:
            return 0
        counts = {PER_HEAD: site.heads, PER_BRANCH: site.branches, PER_CELL: math.prod(self.grid(site) or ())}
        return counts.get(self.size, self.size)

    def grid(self, site: AttentionSite) -> Grid | None:
        """Give the cells of a map at a site: (4, 4), or (2, 4, 4) of a volume; None where it is no map."""
        if self.kind != "map":
            return None
        return map_cells(site.keys if self.keyed else site.grid)


_SPATIAL = (
    Rule("mass_map", "map", PER_CELL),
    Rule("gate_hist", "histogram", 8),
    Rule("ent_hist", "histogram", 6),
    Rule("geom", "scalars", 3),
    Rule("total", "scalars", 1),
)

RULES: dict[Kind, tuple[Rule, ...]] = {
    "channel-gate": (
        Rule("gate_hist", "histogram", 8),
        Rule("gate_prof", "profile", 16),
        Rule("gate_mom", "scalars", 4),
    ),
    "spatial-gate": _SPATIAL,
    "attention-gate": _SPATIAL,
    "feature-gate": (*_SPATIAL, Rule("gate_prof", "profile", 16), Rule("gate_mom", "scalars", 4)),
    "branch": (
        Rule("usage", "shares", PER_BRANCH),
        Rule("ent_hist", "histogram", 6),
        Rule("collapse", "scalars", 2),
    ),
    "cross-attention": (
        Rule("received_map", "map", PER_CELL, keyed=True),
        Rule("ent_hist", "histogram", 6),
        Rule("head_div", "scalars", 1),
        Rule("sink", "scalars", 1),
        Rule("head_ent", "scalars", PER_HEAD),
    ),
    "window": (
        Rule("received_map", "map", PER_CELL),
        Rule("ent_hist", "histogram", 6),
        Rule("offset_prof", "histogram", 8),
        Rule("head_ent", "scalars", PER_HEAD),
    ),
    "axial": (
        Rule("received_prof", "histogram", 8),
        Rule("ent_hist", "histogram", 6),
        Rule("dist_hist", "histogram", 8),
        Rule("head_ent", "scalars", PER_HEAD),
    ),
    "neighbourhood": (
        Rule("received_map", "map", PER_CELL),
        Rule("offset_prof", "histogram", 8),
        Rule("ent_hist", "histogram", 6),
        Rule("head_ent", "scalars", PER_HEAD),
    ),
    "pooling": (
        Rule("lorenz", "scalars", 5),
        Rule("ent_hist", "histogram", 6),
        Rule("effective", "scalars", 1),
    ),
    "self-attention": (
        Rule("cls_map", "map", PER_CELL, cls=True),
        Rule("roll_map", "map", PER_CELL, cls=True, chained=True),
        Rule("received_map", "map", PER_CELL, cls=False),
        Rule("ent_hist", "histogram", 6),
        Rule("dist_hist", "histogram", 8),
        Rule("head_div", "scalars", 1),
        Rule("sink", "scalars", 1),
        Rule("cls_self", "scalars", 1, cls=True),
        Rule("head_ent", "scalars", PER_HEAD),
        Rule("head_dist", "scalars", PER_HEAD),
    ),
}
"""Most telling first: when the number of blocks is capped, the last are left out."""

VIEWS: dict[Kind, Callable[[Tensor, AttentionSite], Any]] = {
    "channel-gate": ChannelGates,
    "spatial-gate": SpatialGates,
    "attention-gate": SpatialGates,
    "feature-gate": FeatureGates,
    "branch": BranchWeights,
    "cross-attention": CrossMaps,
    "window": WindowMaps,
    "axial": AxialMaps,
    "neighbourhood": NeighbourMaps,
    "pooling": BagWeights,
    "self-attention": TokenMaps,
}


def site_rules(site: AttentionSite) -> tuple[Rule, ...]:
    """Give the statistics that a site has by itself, most telling first."""
    return tuple(rule for rule in RULES[site.kind] if rule.length(site) > 0 and not rule.chained)


def images_at_once(tensor: Tensor) -> int:
    """Give how many of a tensor's images are worked on at a time, at least one. Shapes: [B, …]."""
    return max(1, CHUNK.get(tensor.device.type, CHUNK["cpu"]) // max(1, tensor[0].numel()))


def site_blocks(site: AttentionSite, tensor: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Compute the named statistics of one site, per image.

    Shapes: tensor as the site's kind says -> each float32 [B, size].
    """
    views = [VIEWS[site.kind](part, site) for part in torch.split(tensor, images_at_once(tensor))]
    return {name: torch.cat([getattr(view, name)() for view in views]) for name in names}
