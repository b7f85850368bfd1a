"""What is the site's own is pulled towards its mean over the sites while it trains: MR-MTL.

F_k(v) + (λ/2)·‖v − v̄‖², v̄ the mean that the server holds. λ = 0 is local training.

Source: Liu et al. 2022, "On Privacy and Personalization in Cross-Silo Federated Learning", section 4.
"""

from dataclasses import replace

from client.personal.base import LocalRound, Outcome
from client.pull import Pull


def train_pulled(round_: LocalRound) -> Outcome:
    """Train all arrays, the site's own under the pull of their means."""
    round_.load(round_.start())
    pull = Pull(round_.strategy.pull, {name: round_.arrays[name] for name in round_.names})
    return round_.outcome(round_.learn(replace(round_.extras, pull=pull)))
