"""FedSR: representations that are short and say little of an image beside its class.

Source: Nguyen et al. 2022, "FedSR: A Simple and Effective Domain Generalization Method for Federated Learning".
"""

from server.strategies.fedavg import FedAvg


class FedSr(FedAvg):
    """FedAvg, class laws and all; the terms are at the sites (`client/methods/simple_representation.py`).

    Needs `model.representation`.
    """

    method = "simple-representation"
