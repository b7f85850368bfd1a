"""Sites watched as if they were new: quiet among their like, loud where everything moved."""

import numpy as np
import pytest

from simulations.shift import usual
from simulations.shift_watch import watch_sites, window_statistics


def site(seed, shift=0.0, patients=60):
    """Two classes that differ in the first entry; a shift moves the others, prevalence moves nothing else."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(patients) < 0.5).astype(np.int64)
    rows = rng.normal(0, 0.1, (patients, 6)) + rng.normal(0, 0.03, 6)
    rows[:, 0] += labels
    rows[:, 1:] += shift
    return rows, labels


SOURCES = ("a", "b", "c", "d")


@pytest.mark.parametrize("seed", range(3))
def test_a_site_far_from_all_others_is_an_alarm_and_its_like_are_not(seed):
    sites = {name: site(10 * seed + place) for place, name in enumerate(SOURCES)}
    sites |= {"far": site(10 * seed + 7, shift=0.6), "near": site(10 * seed + 8)}
    rows = {row["site"]: row for row in watch_sites(sites, SOURCES, seed)}
    assert rows["far"]["verdict"] == "alarm"
    assert rows["far"]["ewma"] > rows["far"]["q_site"]
    assert rows["far"]["capital"] > 10 * rows["near"]["capital"]
    assert rows["near"]["verdict"] != "alarm"
    for row in rows.values():
        assert row["q_sample"] <= row["q_site"] * 1.5
        assert row["windows"] == 10


def test_prevalence_alone_is_no_alarm():
    sites = {name: site(place) for place, name in enumerate(SOURCES)}
    rows, labels = site(99, patients=300)
    ill = labels == 1
    sites["ill"] = rows[ill], labels[ill]
    (row,) = [row for row in watch_sites(sites, SOURCES, 0) if row["site"] == "ill"]
    assert row["verdict"] != "alarm"


def test_without_two_others_there_is_no_null():
    sites = {"a": site(0), "b": site(1), "tiny": site(2, patients=3)}
    rows = {row["site"]: row for row in watch_sites(sites, ("a", "b"), 0)}
    assert rows["a"]["verdict"] == "no null"
    assert rows["tiny"]["verdict"] == "no null"
    assert np.isnan(rows["a"]["q_site"])


def test_windows_share_no_row():
    from common.shift.projected import Whitening

    plain = Whitening(np.ones(1), np.zeros((1, 0)))
    rows = (10.0 ** np.arange(7))[:, None]
    found = window_statistics(rows, np.zeros((1, 1)), plain, 2, 0)
    digits = sum(round(2 * value**0.5) for value in found)
    assert len(found) == 3
    assert set(str(digits)) <= {"0", "1"}
    assert str(digits).count("1") == 6


def test_the_verdict_of_most_seeds_counts():
    assert usual(["normal", "normal", "alarm"]) == "normal"
    assert usual(["normal", "alarm"]) == "alarm"
