"""Federated averaging with a proximal term at the sites."""

from common.config import StrategySection
from server.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """FedAvg; each site adds (μ/2)·‖w − w_global‖² to its loss. Note the square.

    Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", eq. 2.
    """

    def __init__(self, settings: StrategySection) -> None:
        super().__init__(settings)
        self.mu = settings.mu
