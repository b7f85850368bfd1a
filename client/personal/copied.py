"""A second model of the site's own trains beside the shared one, pulled towards what the round began with: Ditto.

The site answers from v, trained on F_k(v) + (λ/2)·‖v − w‖²; the server gets the update of w, which knows nothing of v.
Both see the same batches. λ = 0 makes v the model of local training, a large λ makes it w.

Source: Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", algorithm 1.
"""

from dataclasses import replace

from client.own import COPY, below, under
from client.personal.base import LocalRound, Outcome
from client.personal.together import train_together
from client.pull import Pull
from common.arrays import model_arrays


def train_copy(round_: LocalRound) -> Outcome:
    """Train the shared model as ever, then the site's own from where its last round left it."""
    shared, start = train_together(round_), round_.start()
    round_.load(below(round_.kept, COPY) or start)
    # The proximal term is the shared model's; guidance is of what the site answers from, and so of both.
    round_.learn(replace(round_.extras, mu=0.0, pull=Pull(round_.strategy.pull, start)))
    return replace(shared, kept={**shared.kept, **under(COPY, model_arrays(round_.model))})
