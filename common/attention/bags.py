"""Statistics of weights that choose: among the instances of a bag, or among branches."""

import math

import torch
from torch import Tensor

from common.attention.base import AttentionSite
from common.attention.histograms import normalised_entropy, soft_histogram

TOPS = (0.01, 0.05, 0.10, 0.25, 0.50)


class BagWeights:
    """Weights of instances. Bags differ in size, so that no weight is released as it is.

    Shapes: rows [B, G, n], sum one over n; G = 1 for a plain bag.
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        self.rows = (tensor[:, None] if tensor.ndim == 2 else tensor).float()

    def ent_hist(self) -> Tensor:
        """Histogram of the groups' entropies over log n, [B, 6]."""
        return soft_histogram(normalised_entropy(self.rows), 6)

    def lorenz(self) -> Tensor:
        """Weight of the top 1, 5, 10, 25 and 50 % of the instances (at least one), mean over groups, [B, 5]."""
        summed = self.rows.sort(dim=-1, descending=True).values.cumsum(-1).clamp(0, 1)
        size = self.rows.shape[-1]
        return torch.stack([summed[..., math.ceil(top * size) - 1].mean(1) for top in TOPS], 1)

    def effective(self) -> Tensor:
        """Share of the instances that count, exp(entropy) / n, mean over groups, [B, 1]."""
        size = self.rows.shape[-1]
        entropy = normalised_entropy(self.rows) * math.log(max(size, 2))
        return (entropy.exp() / size).clamp(0, 1).mean(1, keepdim=True)


class BranchWeights:
    """Weights of M branches for each of C channels.

    Shapes: weights [B, M, C], sum one over M.
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        self.weights = tensor.float()

    def usage(self) -> Tensor:
        """Mean weight of each branch over the channels, [B, M], sum one."""
        return self.weights.mean(2)

    def ent_hist(self) -> Tensor:
        """Histogram of the channels' entropies over log M, [B, 6]."""
        return soft_histogram(normalised_entropy(self.weights.transpose(1, 2)), 6)

    def collapse(self) -> Tensor:
        """Greatest usage, and how uneven usage is: (M Σ usage² - 1) / (M - 1); [B, 2] in [0, 1]."""
        usage = self.usage()
        branches = usage.shape[1]
        uneven = (branches * usage.square().sum(1) - 1) / max(1, branches - 1)
        return torch.stack([usage.amax(1), uneven], 1).clamp(0, 1)
