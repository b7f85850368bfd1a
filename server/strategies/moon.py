"""MOON: a site's representation is drawn to the global model's and away from the site's own of the round before.

Source: Li, He, Song 2021, "Model-Contrastive Federated Learning".
"""

from server.strategies.fedavg import FedAvg


class Moon(FedAvg):
    """FedAvg; all of the method is at the sites (`client/methods/contrast.py`)."""

    method = "contrast"
