"""Federated averaging with a head of its own at each site."""

from server.strategies.fedavg import FedAvg


class FedPer(FedAvg):
    """Each site trains body and head together and keeps its head; the body is averaged.

    The averaged head serves sites that never trained.

    Source: Arivazhagan et al. 2019, "Federated Learning with Personalization Layers", algorithms 1 and 2, with one
    personal layer.
    """

    personal = ("@head",)
