"""Federated averaging with running statistics of normalisation that stay at each site."""

from server.strategies.fedavg import FedAvg


class SiloBn(FedAvg):
    """Each site uses its own running means and variances; scales and shifts are averaged, as everything else.

    What an image looks like at a site (the statistics) stays, what is made of it (scales and shifts) is common. Only
    BatchNorm keeps statistics: a model without any is refused. The averaged ones serve sites that never trained; the
    paper measures them anew there, which is test-time work.

    Source: Andreux et al. 2020, "Siloed Federated Learning for Multi-Centric Histopathology Datasets", section 3.
    """

    personal = ("@statistics",)
