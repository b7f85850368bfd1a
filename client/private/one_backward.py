"""One backward pass for everything: gradients of the layers' outputs only, from which each layer's sum is made.

Per layer the squared norm of each patient's gradient is computed, the norms give the clip factors, and the factors
weigh what was kept. No gradient of a weight is computed twice and none that is not needed ("book-keeping").

Source: Bu et al. 2023, "Differentially Private Optimization on Large Model at Small Cost", with a rule of time in
place of theirs of memory for when a norm is taken without the gradient.
"""

import torch
from torch import Tensor, nn

from client.private.base import Clip, Clipped, ImageLosses, learning, shares
from client.private.catching import catching, used
from client.private.checks import refuse_mixing
from client.private.factors import Factors
from client.private.parts import Part, part
from client.private.trial import why_not
from common.data.base import Batch
from common.errors import UnsupportedModelError


def one_backward(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
    """See `Engine`. Tried beside the general engine before it is trusted with a model (`client/private/trial.py`).

    Raises:
        UnsupportedModelError: A layer is called twice, folds the batch, shares parameters, or holds them beside other
            layers that do; or the trial gave other gradients.
    """
    reason = why_not(taken_apart, model, losses, batch)
    if reason:
        raise UnsupportedModelError(reason)
    return taken_apart(model, losses, batch, patients, clip)


def taken_apart(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
    """Do it, without a trial."""
    refuse_mixing(model)
    with catching(model) as caught:
        logits = model(batch.images)
    layers = used(caught, len(patients))
    total = (losses(logits, batch) * shares(patients, batch.images)).sum()
    count = int(patients.max()) + 1
    parts: dict[str, Part] = {}
    if layers:
        gradients = torch.autograd.grad(total, [each.gave[0] for each in layers.values()], allow_unused=True)
        whose = None if torch.equal(patients, torch.arange(count, device=patients.device)) else patients
        with torch.no_grad():
            for (name, each), gradient in zip(layers.items(), gradients, strict=True):
                if gradient is not None:
                    parts[name] = part(each.layer, each.given[0].detach(), gradient, whose, count)
    return _sum(model, parts, clip, batch.images.new_zeros(count))


def _sum(model: nn.Module, parts: dict[str, Part], clip: Clip, none: Tensor) -> Clipped:
    with torch.no_grad():
        norms = torch.stack([none, *(each.squares for each in parts.values())]).sum(0).sqrt()
        factors = Factors.of(clip.factors(norms))
        found: dict[str, Tensor] = {}
        for name in list(parts):
            rows = parts.pop(name).weighted(factors)
            found |= {f"{name}.{leaf}" if name else leaf: value for leaf, value in rows.items()}
    total = [found[name] if name in found else torch.zeros_like(each) for name, each in learning(model).items()]
    return Clipped(total, norms)
