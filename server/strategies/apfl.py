"""Federated averaging, and at each site a mixture of the shared model with one of its own."""

from server.strategies.fedavg import FedAvg


class Apfl(FedAvg):
    """A site answers from α v + (1 − α) w: w is FedAvg's, v its own, α learnt from `strategy.mixing` on.

    The mixture takes the newest w. A held-out site answers from w. A round costs twice the training.

    Source: Deng, Kamani, Mahdavi 2020, "Adaptive Personalized Federated Learning", algorithm 1.
    """

    manner = "mixture"
