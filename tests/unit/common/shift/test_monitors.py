"""Monitors: by hand for the smoothed one; by many streams for the promise of the e-process."""

import numpy as np
import pytest
from scipy.integrate import quad

from common.errors import DataError
from common.seeds import generator
from common.shift.monitors import BETS, EProcess, Ewma


def test_ewma_by_hand() -> None:
    """λ = .5, threshold 1: z = 1, 1.5, 1.75, .875; two running above 1 come at the third window."""
    watch = Ewma(1.0, smoothing=0.5)
    assert [watch.update(value) for value in (2.0, 2.0, 2.0, 0.0)] == [False, False, True, False]
    assert watch.value == pytest.approx(0.875)


def test_one_outlier_is_no_alarm() -> None:
    watch = Ewma(1.0)
    assert not any(watch.update(value) for value in [0.1, 5.5, 0.0, 0.1])


def test_the_e_process_alarms_rarely_however_often_it_is_looked_at() -> None:
    """300 streams of 200 windows without news: at α = .05 at most 5 % may ever alarm (3 SE of slack)."""
    rng = np.random.default_rng(1)
    alarms = []
    for seed in range(300):
        watch = EProcess(list(rng.normal(size=50)), seed, alpha=0.05)
        alarms.append([watch.update(value) for value in rng.normal(size=200)][-1])
    assert np.mean(alarms) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_the_capital_by_hand() -> None:
    """The largest of two values has p = share / 2; then the smallest of three p = (2 + share) / 3."""
    shares = [1 - generator(4, "shift", "ties", seen).random() for seen in (1, 2)]
    watch = EProcess([0.0], 4)
    watch.update(1.0)
    first = BETS * (shares[0] / 2) ** (BETS - 1)
    assert watch.capital == pytest.approx(first.mean())
    watch.update(-1.0)
    assert watch.capital == pytest.approx((first * BETS * ((2 + shares[1]) / 3) ** (BETS - 1)).mean())


@pytest.mark.parametrize("bet", BETS)
def test_every_bet_is_fair(bet: float) -> None:
    """∫ κ p^(κ−1) dp = 1 over (0, 1): a stake of 1 is worth 1 on average while p is uniform."""
    assert quad(lambda p: bet * p ** (bet - 1), 0, 1)[0] == pytest.approx(1, abs=1e-3)


def test_a_lasting_shift_is_found_soon_and_the_alarm_stays() -> None:
    rng = np.random.default_rng(3)
    watch = EProcess(list(rng.normal(size=200)), 1)
    states = [watch.update(value) for value in rng.normal(3, 1, 15)]
    assert states.index(True) < 6
    assert all(states[states.index(True) :])
    for value in rng.normal(-5, 0.1, 30):
        assert watch.update(value), "capital may fall again; what was proven stays proven"


def test_equal_values_are_no_evidence() -> None:
    watch = EProcess([1.0] * 20, 1)
    assert not any(watch.update(1.0) for _ in range(200))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Ewma(1.0).update(float("nan")), "Only finite"),
        (lambda: EProcess([0.0], 1).update(float("inf")), "Only finite"),
        (lambda: EProcess([], 1), "0 reference windows"),
        (lambda: EProcess([1.0], 1, alpha=1.0), "between 0 and 1"),
    ],
)
def test_bad_input_says_what_is_allowed(call, says: str) -> None:
    with pytest.raises(DataError, match=says):
        call()
