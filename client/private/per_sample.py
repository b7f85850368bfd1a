"""Gradients of single images through `vmap(grad)`, a few at a time: works for any model that keeps images apart."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from client.private.base import Clip, Clipped, ImageLosses, learning, shares
from client.private.checks import explicit_attention, refuse_mixing
from common.data.base import Batch

CHUNK = 16
"""Images whose gradients are held at once."""


def per_sample(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
    """See `Engine`. Memory: one gradient per patient of the micro-batch, and one per image of a chunk."""
    refuse_mixing(model)
    parameters = learning(model)
    values = {name: parameter.detach() for name, parameter in parameters.items()}
    count = int(patients.max()) + 1
    sums = {name: value.new_zeros(count, *value.shape) for name, value in values.items()}
    share = shares(patients, batch.images)
    one = grad(_loss_of_one(model, losses))
    with explicit_attention(model):
        for start in range(0, len(patients), CHUNK):
            part = slice(start, start + CHUNK)
            rows = vmap(one, in_dims=(None, 0, 0, 0), randomness="different")(
                values, batch.images[part], _at(batch.labels, part, batch), _at(batch.masks, part, batch)
            )
            for name, row in rows.items():
                weighted = row * share[part].view(-1, *[1] * (row.ndim - 1))
                sums[name].index_add_(0, patients[part], weighted)
    lengths = [each.flatten(1).norm(dim=1) for each in sums.values()]
    norms = torch.stack([batch.images.new_zeros(count), *lengths]).norm(dim=0)
    factors = clip.factors(norms)
    total = [torch.einsum("p,p...->...", factors, _finite(sums[name], factors)) for name in parameters]
    return Clipped(total, norms)


def _loss_of_one(model: nn.Module, losses: ImageLosses) -> Any:
    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor, mask: Tensor) -> Tensor:
        batch = Batch(
            images=image[None],
            labels=None if label.ndim and label.shape[0] == 0 else label[None],
            masks=None if mask.ndim == 1 else mask[None],
        )
        logits = functional_call(model, values, (batch.images,))
        return losses(logits, batch)[0]

    return loss


def _at(column: Tensor | None, part: slice, batch: Batch) -> Tensor:
    """Cut a column; an absent one becomes empty rows, for vmap wants a tensor."""
    return batch.images.new_zeros(len(batch.images), 0)[part] if column is None else column[part]


def _finite(rows: Tensor, factors: Tensor) -> Tensor:
    """Put zeros where a patient does not count: zero times infinity is not zero."""
    return torch.where((factors > 0).view(-1, *[1] * (rows.ndim - 1)), rows, torch.zeros_like(rows))
