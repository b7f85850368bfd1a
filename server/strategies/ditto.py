"""Federated averaging, and at each site a second model of its own that is pulled towards the shared one."""

from server.strategies.fedavg import FedAvg


class Ditto(FedAvg):
    """The shared model is FedAvg's, bit for bit; a site answers from its own, a held-out site from the shared one.

    `strategy.pull` is λ: 0 is local training, much is the shared model. A round costs twice the training.

    Source: Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", algorithm 1.
    """

    manner = "copied"
