"""Where the class token's answer comes from through all layers: attention rollout, from the first layer to the last."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from common.attention.base import AttentionSite
from common.attention.histograms import TINY
from common.attention.pooling import pooling_matrix
from common.attention.tokens import TokenMaps
from common.errors import AttentionError


def chain_of(site: AttentionSite, sites: Sequence[AttentionSite]) -> tuple[AttentionSite, ...]:
    """Give the sites that rollout runs through: self-attention with a class token on the same grid, in their order."""
    return tuple(other for other in sites if other.kind == "self-attention" and other.cls and other.grid == site.grid)


class RolledMap:
    """The class token's row of Â_L ⋯ Â_1 with Â = ½ mean_h A + ½ I, over the patches, renormalised, in cells.

    The row alone would be r ← r Â_l from the last layer to the first, but layers run from the first to the last, and a
    running product costs N³. What is wanted in the end are cells, not patches: with the pooling matrix P [N, cells]
    (its class row is zero) the map is row 0 of Â_L (⋯ (Â_1 P)). So V ← Â_l V from V = P gives the same map in the order
    in which the layers run, at N² · cells per layer, and keeps N · cells numbers per image and nothing of any layer.

    Source: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", eq. 1.
    """

    def __init__(self, chain: Sequence[AttentionSite]) -> None:
        """Prepare for one forward pass through the sites of `chain_of`, first to last."""
        self._left = [site.name for site in chain]
        self._flow: list[Tensor] = []

    def add(self, site: AttentionSite, tensor: Tensor, images: int) -> None:
        """Take the next layer, working on so many images at a time.

        Shapes: tensor [B, heads, N, N], N = 1 + patches of the grid.

        Raises:
            AttentionError: A layer stayed silent, fired twice, or runs in another order than the model names them.
        """
        if self._left[:1] != [site.name]:
            awaited = repr(self._left[0]) if self._left else "none any more"
            raise AttentionError(
                f"attention site {site.name!r} fired where rollout waits for {awaited}. Layers of one grid with a "
                f"class token fire once each, in the order of `attention_sites`; reorder them there, or give a silent "
                f"one an `explicit` switch."
            )
        del self._left[0]
        parts = torch.split(tensor, images)
        before = self._flow or [self._start(site, tensor.device)] * len(parts)
        self._flow = [self._through(site, part, flow) for part, flow in zip(parts, before, strict=True)]

    def finish(self) -> Tensor:
        """Give the map after the last layer, [B, cells], sum one."""
        row = torch.cat([flow[:, 0] for flow in self._flow]) + TINY
        return row / row.sum(1, keepdim=True)

    @staticmethod
    def _start(site: AttentionSite, device: torch.device) -> Tensor:
        shares = torch.from_numpy(pooling_matrix(site.grid or ())).float().to(device)
        return F.pad(shares, (0, 0, 1, 0))[None]

    @staticmethod
    def _through(site: AttentionSite, part: Tensor, flow: Tensor) -> Tensor:
        mixed = TokenMaps(part, site).rows.mean(1) @ flow
        return (mixed + flow) / 2
