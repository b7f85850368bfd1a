"""What is the site's own is trained first while the rest rests, then the rest while it rests: FedRep.

Source: Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning", algorithm 1.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn

from client.personal.base import LocalRound, Outcome
from common.seeds import derive


def train_alternating(round_: LocalRound) -> Outcome:
    """Train the site's own for `strategy.head-epochs`, then the shared arrays for `train.local-epochs`."""
    round_.load(round_.start())
    own = set(round_.names)
    with only(round_.model, own):
        round_.for_epochs(round_.strategy.head_epochs, derive(round_.seed, "own")).learn()
    with only(round_.model, set(round_.arrays) - own):
        trained = round_.learn()
    return round_.outcome(trained)


@contextmanager
def only(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Let nothing but these arrays change while entered; statistics that move by themselves are put back."""
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers() if name not in names}
    for name, parameter in learning.items():
        parameter.requires_grad_(name in names)
    try:
        yield
    finally:
        for parameter in learning.values():
            parameter.requires_grad_(True)
        for buffer, before in buffers.values():
            buffer.copy_(before)
