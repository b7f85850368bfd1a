"""Federated averaging."""

from common.arrays import Arrays
from server.strategies.base import Strategy, add


class FedAvg(Strategy):
    """New arrays = old arrays + image-weighted mean update.

    Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", alg. 1.
    """

    def apply(self, arrays: Arrays, mean: Arrays) -> Arrays:
        """Add the mean update."""
        return add(arrays, mean)
