"""HarmoFL: all sites see images of the same amplitude, and climb out of sharp minima.

The mean amplitude travels as an array of the model (`common/models/amplitude.py`). In round 1 each site's follows its
own images and the server averages them, weighted by images; later nobody moves it. What is averaged is one amplitude
per site, of all its images together.

Source: Jiang et al. 2022, "HarmoFL: Harmonizing Local and Global Drifts in Federated Learning on Heterogeneous Medical
Images", algorithm 1.
"""

from server.strategies.fedavg import FedAvg


class HarmoFl(FedAvg):
    """FedAvg over amplitude-normalised models, trained with weight perturbation. Needs `model.amplitude`."""

    method = "amplitude"
