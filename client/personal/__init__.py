"""MANNERS: how a site trains what is its own beside what is shared, `(LocalRound) -> Outcome`."""

from common.registry import Registry

MANNERS = Registry(
    "manner of training",
    {
        "together": "client.personal.together:train_together",
        "alternating": "client.personal.alternating:train_alternating",
        "copied": "client.personal.copied:train_copy",
        "mixture": "client.personal.mixture:train_mixture",
        "pulled": "client.personal.pulled:train_pulled",
    },
)
