"""The affine parameters of normalisation: what most methods of adaptation move, and nothing else."""

from torch import nn

from common.models.norms import norm_parameters


def affine_names(model: nn.Module) -> tuple[str, ...]:
    """Name the scales and shifts of normalisation layers, without running statistics, in the state's order.

    The gain and bias of a weight-standardised convolution count, as they do for FedBN.
    """
    trained = {name for name, _ in model.named_parameters()}
    return tuple(name for name in norm_parameters(model) if name in trained)


def no_affine(model: nn.Module) -> str:
    """Say that there is none, or nothing."""
    return "" if affine_names(model) else "it moves scales and shifts of normalisation layers, and the model has none"


def parameters_of(model: nn.Module, names: tuple[str, ...]) -> list[nn.Parameter]:
    """Give the parameters with these names, in this order."""
    known = dict(model.named_parameters())
    return [known[name] for name in names]
