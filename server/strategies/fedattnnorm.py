"""FedAttnNorm: federated averaging with normalisation and the manner of attention kept at each site."""

from server.strategies.fedavg import FedAvg


class FedAttnNorm(FedAvg):
    """A FedBN for attention: each site keeps its norms, its heads' temperatures and its gates' scales and biases.

    Everything else is averaged. What is personal is some hundred numbers beside the norms. The averaged personal arrays
    serve sites that never trained, as under FedBN; choosing among the sites' by distance of attention is test-time
    work. Needs `model.personal-attention`.

    Source: ours, after Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization".
    """

    personal = ("@norms", "@attention")
