"""Federated averaging of a representation, with a head of its own at each site, trained in turn."""

from server.strategies.fedavg import FedAvg


class FedRep(FedAvg):
    """Each site trains its head with the body at rest (`strategy.head-epochs`), then the body with its head at rest.

    The body is averaged. The averaged head serves sites that never trained. The paper trains the head for ten epochs;
    the default of one costs what an epoch of everything costs.

    Source: Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning", algorithm 1.
    """

    personal = ("@head",)
    manner = "alternating"
