"""Gradients of single images through Opacus: an optional second opinion. The only door to Opacus."""

import warnings

import torch
from torch import Tensor, nn

from client.private.base import Clip, Clipped, ImageLosses, learning, shares
from client.private.checks import explicit_attention, refuse_mixing
from client.private.factors import Factors
from client.private.trial import why_not
from common.data.base import Batch
from common.errors import ConfigError, UnsupportedModelError


def with_opacus(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
    """See `Engine`. Opacus knows images only: gradients of a patient's images are added up here.

    Raises:
        ConfigError: Opacus is not installed.
        UnsupportedModelError: Opacus gave other gradients than the general engine when it was tried.
    """
    reason = why_not(by_hooks, model, losses, batch)
    if reason:
        raise UnsupportedModelError(reason)
    return by_hooks(model, losses, batch, patients, clip)


def by_hooks(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
    """Do it, without a trial."""
    refuse_mixing(model)
    try:
        from opacus import GradSampleModule
    except ImportError:
        raise ConfigError(
            "engine 'opacus' needs Opacus, which is not installed. Install it, or set `privacy.engine` to 'auto'."
        ) from None
    parameters = learning(model)
    kept = {parameter: parameter.grad for parameter in model.parameters()}
    for parameter in model.parameters():
        parameter.grad = None  # backward would add to what the caller has
    count = int(patients.max()) + 1
    wrapped = GradSampleModule(model, loss_reduction="sum")
    try:
        with explicit_attention(model), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            (losses(wrapped(batch.images), batch) * shares(patients, batch.images)).sum().backward()  # type: ignore[no-untyped-call]
        rows = {name: _rows(parameter, len(patients)) for name, parameter in parameters.items()}
    finally:
        wrapped.to_standard_module()
        for parameter in model.parameters():
            parameter.grad = kept[parameter]
            for leftover in ("grad_sample", "_forward_counter"):
                if hasattr(parameter, leftover):
                    delattr(parameter, leftover)
    sums = {name: row.new_zeros(count, *row.shape[1:]).index_add_(0, patients, row) for name, row in rows.items()}
    norms = torch.stack([each.flatten(1).norm(dim=1) for each in sums.values()]).norm(dim=0)
    factors = Factors.of(clip.factors(norms))
    return Clipped([factors.weigh(sums[name]) for name in parameters], norms)


def _rows(parameter: nn.Parameter, images: int) -> Tensor:
    found = getattr(parameter, "grad_sample", None)
    return parameter.new_zeros(images, *parameter.shape) if found is None else found
