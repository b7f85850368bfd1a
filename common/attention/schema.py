"""What each number of a signature means, and an id over all of it: statistics with different ids never mix."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from common.attention.base import AttentionModel, AttentionSite, Grid
from common.attention.blocks import RULES, SIMPLEX, BlockKind, Rule, site_rules
from common.attention.checks import check_sites
from common.attention.projection import LONGEST, PROJECTED, SEED
from common.attention.rolled_map import chain_of
from common.errors import AttentionError

VERSION = 3
"""Raised whenever a statistic is computed differently: bins, kernels, normalisation."""
DEPTHS, CAP = 3, 8


@dataclass(frozen=True, slots=True)
class Block:
    """One statistic of one site: entries `start` to `start + size` of the signature.

    Each entry is multiplied by `scale` = w / √size for scalars and profiles and w for probability vectors, with
    w = 1 / √blocks, so that every block has a norm of at most w and the signature of at most one. A `chained` block
    is of all layers up to its site.
    """

    site: str
    name: str
    kind: BlockKind
    start: int
    size: int
    grid: Grid | None
    scale: float
    chained: bool = False

    @property
    def label(self) -> str:
        """Site and statistic in one name."""
        return f"{self.site}/{self.name}"


@dataclass(frozen=True, slots=True)
class Schema:
    """The blocks of a model's signature in the order of its sites; `weights` w_b with Σ w_b² = 1.

    Blocks of more than 256 entries in all are projected to 128 (`projection.py`): each entry then mixes all blocks.
    """

    id: str
    blocks: tuple[Block, ...]
    weights: tuple[float, ...]

    @property
    def entries(self) -> int:
        """How many entries the blocks have side by side."""
        return sum(block.size for block in self.blocks)

    @property
    def projected(self) -> bool:
        """Whether signatures are projected, so that no block can be read from them."""
        return self.entries > LONGEST

    @property
    def length(self) -> int:
        """How many entries a signature has."""
        return PROJECTED if self.projected else self.entries

    @property
    def sites(self) -> tuple[str, ...]:
        """The attention sites that are measured, in order."""
        return tuple(dict.fromkeys(block.site for block in self.blocks))

    def split(self, vector: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Cut a signature, or a mean of signatures, into its blocks and take the scale away.

        Raises:
            AttentionError: The vector has another length, or the signature is projected.
        """
        if vector.shape != (self.length,):
            raise AttentionError(
                f"a signature has shape {vector.shape}. Its schema {self.id[:12]} allows ({self.length},); use the "
                f"schema that it was measured with."
            )
        if self.projected:
            raise AttentionError(
                f"a projected signature has no blocks: the {self.entries} entries of its {len(self.blocks)} blocks are "
                f"mixed into {PROJECTED}. Blocks, ADD-W and JS need {LONGEST} entries or fewer; ask `schema_of` for "
                f"fewer depths or blocks, or compare whole vectors by ADD-M, ADD-F or D²⊥."
            )
        return {block.label: vector[block.start : block.start + block.size] / block.scale for block in self.blocks}


def schema_of(model: AttentionModel, depths: int = DEPTHS, cap: int = CAP) -> Schema:
    """Choose what is measured on a model: at most `depths` sites of each kind, spread from early to late, `cap` blocks.

    Blocks are taken in rounds: the most telling statistic of each kind at every depth, late before early before middle,
    then the next statistic, until `cap` blocks are reached. Needs no forward pass: a server that holds the model and no
    image builds the same schema. More than 256 entries are projected to 128.

    Raises:
        AttentionError: The model names no sites.
    """
    check_sites(type(model).__name__, model.attention_sites)
    taken = _choose(_spread(model.attention_sites, depths), model.attention_sites, cap)
    taken.sort(key=lambda pair: model.attention_sites.index(pair[0]))
    blocks = _lay_out(taken)
    return Schema(_digest(model, blocks), blocks, (len(blocks) ** -0.5,) * len(blocks))


def _spread(sites: Sequence[AttentionSite], depths: int) -> list[list[AttentionSite]]:
    """For each kind its late, early and middle sites, in this order of importance."""
    groups = []
    for kind in dict.fromkeys(site.kind for site in sites):
        same = [site for site in sites if site.kind == kind]
        steps = min(depths, len(same))
        early = [i * (len(same) - 1) // max(1, steps - 1) for i in range(steps - 1)]
        groups.append([same[place] for place in (len(same) - 1, *early)])
    return groups


def _choose(
    groups: list[list[AttentionSite]], sites: Sequence[AttentionSite], cap: int
) -> list[tuple[AttentionSite, Rule]]:
    own = {site: _rules(site, sites) for group in groups for site in group}
    ranked = [[rule for rule in RULES[group[0].kind] if any(rule in own[site] for site in group)] for group in groups]
    taken = [
        (group[depth], rules[rank])
        for rank in range(max(map(len, ranked)))
        for depth in range(max(map(len, groups)))
        for group, rules in zip(groups, ranked, strict=True)
        if depth < len(group) and rank < len(rules) and rules[rank] in own[group[depth]]
    ]
    return taken[:cap]


def _rules(site: AttentionSite, sites: Sequence[AttentionSite]) -> tuple[Rule, ...]:
    """Give what a site of a model has; what is made of all layers, two or more, stands at the last."""
    last = site.cls and chain_of(site, sites)[1:][-1:] == (site,)
    has_own = site_rules(site)
    return tuple(rule for rule in RULES[site.kind] if rule in has_own or (rule.chained and last))


def _lay_out(taken: list[tuple[AttentionSite, Rule]]) -> tuple[Block, ...]:
    weight = len(taken) ** -0.5
    blocks: list[Block] = []
    start = 0
    for site, rule in taken:
        size = rule.length(site)
        scale = weight if rule.kind in SIMPLEX else weight / size**0.5
        blocks.append(Block(site.name, rule.name, rule.kind, start, size, rule.grid(site), scale, rule.chained))
        start += size
    return tuple(blocks)


def _digest(model: AttentionModel, blocks: tuple[Block, ...]) -> str:
    """SHA-256 over everything that fixes the meaning; values of weights are no part of it, their shapes are."""
    meaning = {
        "version": VERSION,
        "blocks": [asdict(block) for block in blocks],
        "sites": [asdict(site) for site in model.attention_sites],
        "model": type(model).__name__,
        "arrays": [[name, list(array.shape)] for name, array in model.state_dict().items()],
        "projection": _projection(blocks),
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _projection(blocks: tuple[Block, ...]) -> list[str | int] | None:
    if sum(block.size for block in blocks) <= LONGEST:
        return None
    return [PROJECTED, SEED, "rows of Q of the QR decomposition of normal numbers"]
