"""Does it work at a hospital it has never seen? Methods side by side, every site left out once.

FOLDS: protocol to the function that says who trains and who is judged: `folds(sources, held_out) -> list[Fold]`.
"""

from common.registry import Registry

FOLDS = Registry(
    "protocol of a benchmark",
    {
        "leave-one-site-out": "simulations.generalise.folds:leave_one_site_out",
        "held-out": "simulations.generalise.folds:held_out",
        "in-federation": "simulations.generalise.folds:in_federation",
        "site-by-site": "simulations.generalise.folds:site_by_site",
    },
)
