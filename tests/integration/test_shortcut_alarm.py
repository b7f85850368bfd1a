"""The alarm for shortcuts on the phantom: it fires where the corner marker follows the label, and nowhere else."""

import pytest

from simulations.engine import Training, train
from tests.federations import load_run_config

SITES = ("north", "harbour", "university", "lakeside", "valley", "island")
HELD_OUT = "valley, island"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_fires_at_the_biased_site_only(seed):
    """Lakeside marks 85 % of its ill and 10 % of its well; island marks 30 % of both; the others mark nobody."""
    config = load_run_config(
        {"seed": seed, "rounds": 5, "data.held-out": HELD_OUT, "data.patients-per-site": 100, "train.local-epochs": 2}
    )
    records = []
    train(Training("shortcut", config, tuple((site,) for site in SITES)), records.append, workers=0)
    last = records[-1]
    assert set(last.health) == set(SITES)
    assert {site for site, found in last.alarms.items() if "shortcut" in found} == {"lakeside"}
    assert last.alarms["lakeside"]["shortcut"].endswith("corner-ne")
