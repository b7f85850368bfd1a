"""Statistics of gates: one value per channel, or one per pixel. All per image, each a block of norm at most one."""

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from common.attention.base import AttentionSite
from common.attention.histograms import TINY, normalised_entropy, soft_histogram
from common.attention.pooling import pool_cells

CLOSED, OPEN = 0.05, 0.95
"""Below and above these a gate counts as saturated."""


class ChannelGates:
    """Gates of one channel attention: values in [0, 1].

    Shapes: gates [B, C].
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        self.gates = tensor.float().clamp(0, 1)

    def gate_hist(self) -> Tensor:
        """Histogram over the channels, [B, 8]."""
        return soft_histogram(self.gates, 8)

    def gate_prof(self) -> Tensor:
        """Means of 16 groups of neighbouring channels, [B, 16]; fewer channels are repeated.

        Comparable between sites only because all measure with the same weights.
        """
        return F.adaptive_avg_pool1d(self.gates[:, None], 16)[:, 0]

    def gate_mom(self) -> Tensor:
        """Mean, twice the standard deviation, share of closed and of open gates: [B, 4] in [0, 1]."""
        gates = self.gates
        spread = 2 * gates.std(1, correction=0)
        closed, open_ = (gates < CLOSED).float().mean(1), (gates > OPEN).float().mean(1)
        return torch.stack([gates.mean(1), spread.clamp(0, 1), closed, open_], 1)


class SpatialGates:
    """Gates of one spatial attention or attention gate: values in [0, 1].

    The map of a volume whose site says so by its `grid` has depth; else, and for the geometry, depth is summed.
    Histograms, entropy and total count every voxel.

    Shapes: gates [B, *S], from [B, 1, *S].
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        self.gates = tensor[:, 0].float().clamp(0, 1)
        self.deep = site.grid is not None and len(site.grid) == 3

    @cached_property
    def spread(self) -> Tensor:
        """The gates as a distribution over all positions, [B, P]; closed everywhere counts as uniform."""
        raised = self.gates.flatten(1) + TINY
        return raised / raised.sum(1, keepdim=True)

    @cached_property
    def mass(self) -> Tensor:
        """That distribution in the plane, [B, H, W]."""
        return self.spread.reshape(len(self.gates), -1, *self.gates.shape[-2:]).sum(1)

    def mass_map(self) -> Tensor:
        """Where the gates are open, [B, cells]."""
        if self.deep:
            return pool_cells(self.spread, tuple(self.gates.shape[1:]))
        return pool_cells(self.mass.flatten(1), tuple(self.mass.shape[1:]))

    def gate_hist(self) -> Tensor:
        """Histogram over the positions, [B, 8]."""
        return soft_histogram(self.gates.flatten(1), 8)

    def ent_hist(self) -> Tensor:
        """Entropy of the mass over log(positions), as a soft one-hot of 6 bins, [B, 6]."""
        return soft_histogram(normalised_entropy(self.spread)[:, None], 6)

    def total(self) -> Tensor:
        """How far the gates are open on average, [B, 1]."""
        return self.gates.flatten(1).mean(1, keepdim=True)

    def geom(self) -> Tensor:
        """Centre of mass (row, column) and spread around it: [B, 3] in [0, 1], in shares of the image's sides.

        Spread is sqrt(2 (var_row + var_column)): a variance on [0, 1] is at most 1/4, so that it is at most 1.
        """
        rows, columns = self.mass.sum(2), self.mass.sum(1)
        row, row_variance = _moments(rows)
        column, column_variance = _moments(columns)
        return torch.stack([row, column, (2 * (row_variance + column_variance)).sqrt().clamp(0, 1)], 1)


class FeatureGates(SpatialGates):
    """Gates of every channel at every position: their mean over the channels is treated as a spatial gate.

    Shapes: from [B, C, *S] in [0, 1].
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        super().__init__(tensor.float().mean(1, keepdim=True), site)
        self._tensor, self._site = tensor, site

    @cached_property
    def channels(self) -> ChannelGates:
        """Each channel's mean gate."""
        return ChannelGates(self._tensor.float().flatten(2).mean(2), self._site)

    def gate_hist(self) -> Tensor:
        """Histogram over channels and positions, [B, 8]."""
        return soft_histogram(self._tensor.float().clamp(0, 1).flatten(1), 8)

    def gate_prof(self) -> Tensor:
        """Means of 16 groups of neighbouring channels, [B, 16]."""
        return self.channels.gate_prof()

    def gate_mom(self) -> Tensor:
        """Moments of the channels' mean gates, [B, 4]."""
        return self.channels.gate_mom()


def _moments(profile: Tensor) -> tuple[Tensor, Tensor]:
    size = profile.shape[1]
    centres = (torch.arange(size, device=profile.device, dtype=profile.dtype) + 0.5) / size
    mean = (profile * centres).sum(1)
    return mean, (profile * (centres - mean[:, None]) ** 2).sum(1)
