"""What the recorder makes of each attention tensor for a signature, so that no tensor outlives its layer."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from common.attention.base import AttentionSite
from common.attention.blocks import images_at_once, site_blocks
from common.attention.projection import projection
from common.attention.rolled_map import RolledMap, chain_of
from common.attention.schema import Block, Schema


class Reduction:
    """The scaled blocks of each site's tensor in one forward pass; what runs through layers is kept as it stands.

    `sites` are those to listen to: the schema's, and the layers that a rollout of the schema runs through.
    """

    def __init__(self, schema: Schema, sites: Sequence[AttentionSite]) -> None:
        """Prepare for one forward pass of a model with these sites."""
        self._blocks: dict[str, list[Block]] = {site: [] for site in schema.sites}
        for block in schema.blocks:
            self._blocks[block.site].append(block)
        ends = [site for site in sites if any(block.chained for block in self._blocks.get(site.name, ()))]
        self._chains = {end.name: chain_of(end, sites) for end in ends}
        self._rolled = {name: RolledMap(chain) for name, chain in self._chains.items()}
        heard = {site.name for chain in self._chains.values() for site in chain} | set(self._blocks)
        self.sites = tuple(site for site in sites if site.name in heard)

    def __call__(self, site: AttentionSite, tensor: Tensor) -> Tensor:
        """Give the site's part of the signature, no entries where a rollout only passes through.

        Shapes: tensor as the site's kind says -> float64 [B, entries].
        """
        for end, chain in self._chains.items():
            if site in chain:
                self._rolled[end].add(site, tensor, images_at_once(tensor))
        blocks = self._blocks.get(site.name, [])
        values = site_blocks(site, tensor, [block.name for block in blocks if not block.chained])
        parts = [
            (self._rolled[site.name].finish() if block.chained else values[block.name]).double() * block.scale
            for block in blocks
        ]
        return torch.cat([tensor.new_zeros(len(tensor), 0, dtype=torch.float64), *parts], 1)


def assemble(parts: Iterable[Tensor], schema: Schema) -> Tensor:
    """Lay the sites' parts side by side and project them where the schema says so. Shapes: [B, …] each -> [B, d]."""
    rows = torch.cat(list(parts), 1)
    if not schema.projected:
        return rows
    return rows @ torch.from_numpy(projection(schema.entries).T.copy()).to(rows.device)
