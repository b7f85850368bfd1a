"""Everything is trained at once; what is the site's own is put in its place before and kept after."""

from client.personal.base import LocalRound, Outcome


def train_together(round_: LocalRound) -> Outcome:
    """Train all arrays of the shared model. Without anything of the site's own this is plain local training."""
    if round_.names:
        round_.load(round_.start())
    return round_.outcome(round_.learn())
