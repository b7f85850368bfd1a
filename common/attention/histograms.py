"""Soft histograms, normalised entropy and the distance between heads: what several kinds of attention share."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-12


def soft_histogram(values: Tensor, bins: int) -> Tensor:
    """Share out each value between the two bins whose centres lie around it, and average over the values.

    Bin j has its centre at c_j = (j + 1/2) / bins and the weight max(0, 1 - bins |v - c_j|), renormalised over j: the
    triangular kernel, differentiable and Lipschitz. Computed as differences of the survival function
    h_j = mean(clamp(t - j, 0, 1)), t = bins v - 1/2, which never come out negative.

    Shapes: values [B, n] in [0, 1] -> [B, bins], not negative, sum 1.
    """
    place = (values * bins - 0.5).clamp(0, bins - 1)
    steps = torch.arange(bins - 1, device=values.device, dtype=values.dtype)
    above = (place[:, None] - steps[:, None]).clamp(0, 1).mean(2)
    return F.pad(above, (1, 0), value=1.0) - F.pad(above, (0, 1))


def normalised_entropy(rows: Tensor) -> Tensor:
    """Entropy of probability vectors over the last axis, divided by its greatest value log n: in [0, 1].

    By a logarithm of clamped values: `torch.special.entr` is exact at zero and six times slower on a CPU.
    """
    logs = rows.clamp_min(TINY).log()
    return (-(rows * logs).sum(-1) / math.log(max(rows.shape[-1], 2))).clamp(0, 1)


def head_divergence(rows: Tensor, entropy: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence between the rows of two heads, over pairs of heads and queries, over ln 2.

    JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin 1991, eq. 4.1), one pair of heads at a time.

    Args:
        rows: Attention of every head.
        entropy: `normalised_entropy(rows)`, which the caller has already.

    Shapes: rows [B, H, N, N], entropy [B, H, N] -> [B] in [0, 1]; one head gives 0.
    """
    heads, size = rows.shape[1], rows.shape[-1]
    total = entropy.new_zeros(len(rows))
    for first in range(heads):
        for second in range(first):
            mixed = normalised_entropy((rows[:, first] + rows[:, second]) / 2)
            total = total + (mixed - (entropy[:, first] + entropy[:, second]) / 2).mean(-1)
    pairs = max(1, heads * (heads - 1) // 2)
    return (total * math.log(max(size, 2)) / math.log(2) / pairs).clamp(0, 1)
