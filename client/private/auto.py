"""Takes the fast engine where it is right, and the general one elsewhere."""

from torch import Tensor, nn

from client.private.base import Clip, Clipped, ImageLosses
from client.private.one_backward import taken_apart
from client.private.per_sample import per_sample
from client.private.trial import why_not
from common.data.base import Batch


def auto(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
    """See `Engine`."""
    engine = per_sample if why_not(taken_apart, model, losses, batch) else taken_apart
    return engine(model, losses, batch, patients, clip)
