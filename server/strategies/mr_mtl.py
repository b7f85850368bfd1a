"""Mean-regularised multi-task learning: every site has a model of its own, and the server their mean."""

from server.strategies.fedavg import FedAvg


class MrMtl(FedAvg):
    """Each site trains F_k(v) + (λ/2)·‖v − v̄‖² from where its v stood; v̄ is the mean over the round's cohort.

    The mean is weighted by images, which makes it the one that minimises the pull over all images. `strategy.pull` is
    λ: 0 is local training. A held-out site answers from v̄.

    Source: Liu et al. 2022, "On Privacy and Personalization in Cross-Silo Federated Learning", section 4.
    """

    personal = ("*",)
    manner = "pulled"
