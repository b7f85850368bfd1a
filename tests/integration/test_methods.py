"""Strategies with a method at the sites, over the real apps: the same bits through stops and workers."""

import threading

import numpy as np
import pytest

from client.methods import METHODS
from client.site import MEMBERS, open_site
from client.store import Store
from common.errors import AggregationError
from server.checkpoint import load_checkpoint
from server.rounds import Stopped
from server.strategies import STRATEGIES
from tests.federations import SITES, same_checkpoint, small_config, sorted_like, train_small

WITH_METHOD = [name for name in sorted(STRATEGIES) if STRATEGIES.load(name).method]


def config(name, **changes):
    """Two of three sites in each round, so that what a site keeps may be several rounds old."""
    needs = {"harmofl": {"model__amplitude": True}, "fedsr": {"model__representation": "gaussian"}}
    return small_config(
        rounds=4, strategy__name=name, cohort__fraction=0.6, attention__every=0, **needs.get(name, {}), **changes
    )


def test_every_method_is_asked_for_by_a_strategy():
    assert {STRATEGIES.load(name).method for name in WITH_METHOD} == set(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_METHOD)
def test_a_run_that_was_stopped_and_goes_on_with_workers_ends_in_the_same_bits(name, tmp_path):
    straight, records = train_small(config(name, out=str(tmp_path / "straight")))
    out, stop = config(name, out=str(tmp_path / "stopped")), threading.Event()
    stop.set()
    for workers in (0, 2):
        with pytest.raises(Stopped):
            train_small(out, workers=workers, stop=stop)
    end, again = train_small(out, workers=2)
    assert same_checkpoint(sorted_like(end, straight), straight)
    assert again == records
    assert all(not record.failures for record in records)


def test_scaffold_keeps_the_mean_of_the_sites_variates(tmp_path):
    """Σ n_k/N c_k = c, of sites that took part in different rounds."""
    run = config("scaffold", out=str(tmp_path))
    end, _ = train_small(run)
    opened = {name: open_site(run, {MEMBERS: name}) for name in SITES}
    images = {name: len(site.data.train) for name, site in opened.items()}
    kept = {name: Store(site.store / "method").load(4) for name, site in opened.items()}
    assert sum(bool(each) for each in kept.values()) >= 2
    for name, array in end.state.items():
        key = name.removeprefix("c/")
        mean = sum(images[site] * each.get(key, 0 * array) for site, each in kept.items()) / sum(images.values())
        np.testing.assert_allclose(array, mean, atol=1e-6)
    assert max(np.abs(array).max() for array in end.state.values()) > 1e-3


@pytest.mark.slow
def test_each_trains_another_model(tmp_path):
    """But fednova, whose sites make steps in proportion to images here only by chance."""
    ends = {
        name: train_small(config(name, out=str(tmp_path / name), strategy__group_step=5.0))[0].arrays
        for name in ("fedavg", "scaffold", "feddyn", "qffl", "afl", "group-dro", "moon", "fedproto")
    }
    flat = [np.concatenate([array.ravel() for array in end.values()]) for end in ends.values()]
    assert all(not np.array_equal(left, right) for i, left in enumerate(flat) for right in flat[:i])


def test_what_is_kept_needs_a_folder():
    with pytest.raises(AggregationError, match="0 usable updates"):
        train_small(config("scaffold"))


def test_state_is_in_the_checkpoint(tmp_path):
    end, _ = train_small(config("group-dro", out=str(tmp_path)))
    found = load_checkpoint(tmp_path)
    assert {name: float(share) for name, share in found.state.items()} == {
        name: float(share) for name, share in end.state.items()
    }
    assert sum(map(float, found.state.values())) == pytest.approx(1)


def test_harmofl_averages_the_sites_amplitudes_once_and_shows_them_to_a_site_that_never_trained(tmp_path):
    """After round 1 the mean lies between the sites' own, and no later round moves it; a held-out site is judged."""
    changes = {"model__amplitude": True, "attention__every": 0, "data__held_out": "lakeside"}
    first, _ = train_small(small_config(rounds=1, strategy__name="harmofl", **changes))
    later, records = train_small(small_config(rounds=3, strategy__name="harmofl", **changes))
    mean = first.arrays["before.mean"]
    assert mean.tobytes() == later.arrays["before.mean"].tobytes()
    alone = [
        train_small(small_config(rounds=1, strategy__name="harmofl", model__amplitude=True), [site])[0].arrays[
            "before.mean"
        ]
        for site in ("harbour", "north")
    ]
    assert (mean <= np.maximum(*alone) + 1e-6).all()
    assert (mean >= np.minimum(*alone) - 1e-6).all()
    assert "lakeside" in records[-1].evaluation
