"""Federated averaging with normalisation layers that stay at each site."""

from server.strategies.fedavg import FedAvg


class FedBn(FedAvg):
    """Each site trains and uses its own normalisation arrays; everything else is averaged.

    The server's averaged normalisation arrays serve only sites that never trained, as the paper does for an unknown
    domain. With GroupNorm or LayerNorm the same rule applies to their scales and shifts.

    Source: Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization".
    """

    personal = ("@norms",)
