"""Soft histograms: shares of values in bins, through which gradients run."""

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 10
SOFTNESS = 0.01
"""Of a bin's edge, as a share of the range."""
REACH = 3.0
"""The range begins and ends so many standard deviations from the mean of the source."""
LEAST = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Range and shares of each of D units, float32. Shapes: low, high [D]; shares [D, BINS], sum 1."""

    low: Tensor
    high: Tensor
    shares: Tensor


def soft_counts(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Add up how much each value lies in each bin; the outer bins reach to infinity, so each value counts as one.

    A value is in the bin from a to b by σ((z − a) / (τ r)) − σ((z − b) / (τ r)), r the unit's range and τ the softness.

    Shapes: values [N, D], low and high [D] -> [D, BINS].
    Source: Eastwood et al. 2022, "Source-Free Adaptation to Measurement Shift via Bottom-Up Feature Restoration";
    they take the range from the extremes of the source, which no sum over sites gives.
    """
    width = (high - low).clamp_min(LEAST)
    edges = torch.linspace(0, 1, BINS + 1, device=values.device)[1:-1]
    above = torch.sigmoid((((values - low) / width)[:, :, None] - edges) / SOFTNESS).sum(0)
    whole = torch.full_like(low, float(len(values)))[:, None]
    bounds = torch.cat([whole, above, torch.zeros_like(whole)], 1)
    return bounds[:, :-1] - bounds[:, 1:]


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence ½ Σ (p − q) ln(p / q), mean over units. [D, BINS] twice -> scalar.

    Twice it is the population stability index.
    """
    p, q = p.clamp_min(LEAST), q.clamp_min(LEAST)
    return ((p - q) * (p / q).log()).sum(1).mean() / 2
