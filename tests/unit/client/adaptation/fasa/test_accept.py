"""The six tests, each alone: what passes all of them by a hair fails each by a hair."""

from dataclasses import replace

import numpy as np
import pytest

from client.adaptation.fasa.accept import OBJECTIONS, Evidence, Limits, objections
from client.adaptation.fasa.bands import Bands, bands_of, histograms
from common.errors import DataError

LIMITS = Limits()
JUST = Evidence(before=1.0, after=0.9, flips=0.2, mix_moved=0.15, entropy=0.029, entropy_before=0.5, steps=50)
HAIR = 1e-6
WORSE = {
    "no-gain": {"after": 0.9 + HAIR},
    "flips": {"flips": 0.2 + HAIR},
    "label-mix": {"mix_moved": 0.15 + HAIR},
    "entropy": {"entropy": 0.029 - HAIR},
    "attention": {"outside": {"gate/saturation": 1.0}},
    "budget": {"steps": 51},
}


def test_what_keeps_every_limit_is_used():
    assert objections(JUST, LIMITS) == ()


@pytest.mark.parametrize("name", OBJECTIONS)
def test_each_test_alone_refuses(name):
    assert objections(replace(JUST, **WORSE[name]), LIMITS) == (name,)


def test_who_was_sure_before_adapting_did_not_become_so():
    assert objections(replace(JUST, entropy=0.01, entropy_before=0.01), LIMITS) == ()
    assert objections(replace(JUST, entropy=0.01 - HAIR, entropy_before=0.01), LIMITS) == ("entropy",)


def test_all_objections_are_named():
    worst = {key: value for change in WORSE.values() for key, value in change.items()}
    assert objections(replace(JUST, **worst), LIMITS) == OBJECTIONS


@pytest.mark.parametrize("field", ["before", "after", "flips", "mix_moved", "entropy"])
def test_what_is_not_a_number_is_never_accepted(field):
    assert objections(replace(JUST, **{field: float("nan")}), LIMITS)


def test_bands_hold_nearly_all_images_and_add_across_sites():
    rng = np.random.default_rng(0)
    values = np.stack([rng.beta(2, 5, 4000), rng.beta(8, 2, 4000), np.ones(4000)], 1)
    whole = bands_of(histograms(values))
    halves = bands_of(histograms(values[:1500]) + histograms(values[1500:]))
    assert np.array_equal(whole.low, halves.low)
    assert np.array_equal(whole.high, halves.high)
    low, high = np.quantile(values, [0.005, 0.995], axis=0)
    assert (whole.low <= low).all()
    assert (whole.low >= low - 0.0051).all()
    assert (whole.high >= high).all()
    assert (whole.high <= high + 0.0051).all()


def test_a_vital_sign_outside_its_band_is_named():
    bands = Bands(np.array([0.1, 0.2]), np.array([0.5, 0.6]))
    assert bands.outside(np.array([0.1, 0.6]), ("a", "b")) == {}
    assert bands.outside(np.array([0.09, 0.6]), ("a", "b")) == {"a": 0.09}
    assert set(bands.outside(np.array([0.3, np.nan]), ("a", "b"))) == {"b"}
    with pytest.raises(DataError, match="same model"):
        bands.outside(np.zeros(3), ("a", "b", "c"))
    with pytest.raises(DataError, match="cross"):
        Bands(np.ones(2), np.zeros(2))
