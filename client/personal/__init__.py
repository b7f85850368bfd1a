"""MANNERS: how a site trains what is its own beside what is shared, `(LocalRound) -> Outcome`."""

from common.registry import Registry

MANNERS = Registry(
    "manner of training",
    {
        "together": "client.personal.together:train_together",
    },
)
