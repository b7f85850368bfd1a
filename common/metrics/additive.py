"""Metrics that are a function of sums over images: one matrix product weighs them, one addition pools them."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from common.metrics.base import Predictions, Weights

Floats = NDArray[np.float64]


class Additive(ABC):
    """A metric of the form f(Σᵢ wᵢ sᵢ), with sᵢ a fixed-length row of statistics of image i."""

    not_poolable = ""
    resolution = 0.0

    @abstractmethod
    def statistics(self, predictions: Predictions) -> Floats:
        """Give the rows sᵢ, [N, D]; D depends on the task only."""

    @abstractmethod
    def finish(self, sums: Floats) -> Floats:
        """Compute f on each row of sums [B, D] -> [B]; NaN where undefined."""

    def value(self, predictions: Predictions, weights: Weights | None = None) -> Floats:
        """Give [1] without weights, [B] with weights [B, N]."""
        rows = self.statistics(predictions)
        return self.finish(rows.sum(axis=0, keepdims=True) if weights is None else weights @ rows)

    def support(self, predictions: Predictions) -> int:
        """Count the images."""
        return len(predictions)

    def sums(self, predictions: Predictions) -> Floats:
        """Give the summed statistics [D]."""
        return np.asarray(self.statistics(predictions).sum(axis=0))

    def pooled(self, sums: Floats) -> float:
        """Compute the metric from added sums [D]."""
        return float(self.finish(sums[None])[0])


def ratio(above: Floats, below: Floats) -> Floats:
    """Divide; NaN, without a warning, where `below` is zero."""
    above, below = np.broadcast_arrays(above, below)
    undefined = np.full(above.shape, np.nan)
    return np.asarray(np.divide(above, below, out=undefined, where=below != 0))


def mean_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def flat(rows: Floats) -> Floats:
    """Join all axes but the first, also where there is no row."""
    return rows.astype(np.float64, copy=False).reshape(len(rows), int(np.prod(rows.shape[1:])))
