"""Costs against published and independently computed figures, against Opacus, and against their algebra."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import LedgerError, PrivacyError
from common.privacy.accountant import cost, epsilon
from common.privacy.calibration import affordable, gaussian_delta, gaussian_noise_multiplier, noise_multiplier
from common.privacy.events import (
    KINDS,
    DiscreteGaussian,
    Gaussian,
    Laplace,
    NonPrivate,
    PoissonSampled,
    Repeated,
    Skellam,
    counted,
    from_json,
    to_json,
)
from common.privacy.renyi import DIVERGENCES, ORDERS, rounded_sensitivity, sampled_divergence

# q, sigma, T, delta, RDP, PLD: dp-accounting 0.6.0 and Opacus 1.6.0 agree on them; the last two PLD are exact.
SAMPLED = [
    (256 / 60000, 1.1, 14062, 1e-5, 2.59656, 2.38169),
    (0.01, 4.0, 10000, 1e-5, 1.03549, 0.94700),
    (64 / 60000, 1.0, 9380, 1e-5, 0.80356, 0.49383),
    (64 / 60000, 1.3, 14070, 1e-5, 0.50056, 0.39889),
    (64 / 60000, 0.7, 42210, 1e-5, 3.00094, 2.50510),
    (1024 / 50000, 1.5, 4394, 1e-5, 4.93591, 4.55121),
    (0.032, 1.0, 1000, 1e-4, 6.34613, 5.67913),
]
WHOLE = [(10.0, 100, 1e-5, 4.72851, 4.37718), (1.0, 1, 1e-5, 4.72851, 4.377178), (30.0, 50, 1e-5, 0.94974, 0.868423)]
EVENTS = [
    Gaussian(2.0),
    Laplace(3.0),
    Skellam(400.0, 3.0, 5.0),
    DiscreteGaussian(20.0, 5, 4.0, 10),
    PoissonSampled(0.1, Gaussian(1.2)),
    PoissonSampled(0.1, Laplace(2.0)),
    PoissonSampled(0.1, Skellam(400.0, 3.0, 5.0)),
]


def sampled(q, sigma, steps):
    return [Repeated(PoissonSampled(q, Gaussian(sigma)), steps)]


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "rdp", "pld"), SAMPLED)
def test_sampled_gaussians(q, sigma, steps, delta, rdp, pld):
    events = sampled(q, sigma, steps)
    assert epsilon(events, delta, "rdp") == pytest.approx(rdp, rel=1e-3)
    assert epsilon(events, delta) == pytest.approx(pld, abs=5e-3)


@pytest.mark.parametrize(("sigma", "times", "delta", "rdp", "pld"), WHOLE)
def test_gaussians_without_sampling(sigma, times, delta, rdp, pld):
    events = [Repeated(Gaussian(sigma), times)]
    assert epsilon(events, delta, "rdp") == pytest.approx(rdp, rel=1e-3)
    assert epsilon(events, delta) == pytest.approx(pld, abs=5e-3)
    assert gaussian_delta(pld, math.sqrt(times) / sigma) == pytest.approx(delta, rel=2e-3)


@pytest.mark.parametrize(
    ("events", "rdp", "pld"),
    [
        (sampled(0.02, 1.0, 500), 3.14428, 2.77345),
        ([*sampled(0.02, 1.0, 500), Repeated(Gaussian(20.0), 20)], 3.29144, 2.92128),
        ([*sampled(0.02, 1.0, 500), Repeated(Gaussian(40.0), 20)], 3.18116, 2.81066),
        ([*sampled(0.02, 1.0, 500), *sampled(0.02, 5.0, 20)], 3.14525, 2.77443),
        ([Repeated(Gaussian(20.0), 20)], 0.89696, 0.81973),
    ],
)
def test_training_and_attention_in_one_ledger(events, rdp, pld):
    assert epsilon(events, 1e-5, "rdp") == pytest.approx(rdp, abs=1e-3)
    assert epsilon(events, 1e-5) == pytest.approx(pld, abs=5e-3)


@pytest.mark.parametrize(
    ("sigma", "steps", "old", "today", "pld"),
    [(1.3, 3515, 1.1921, 0.9544, 0.8645), (1.1, 14062, 3.0083, 2.5966, 2.3817), (0.7, 10546, 7.1003, 6.3181, 5.6394)],
)
def test_published_mnist_figures_used_an_older_conversion(sigma, steps, old, today, pld):
    # The figures that Opacus and TF-Privacy print used epsilon = rdp + ln(1/delta)/(alpha - 1).
    events = sampled(256 / 60000, sigma, steps)
    assert epsilon(events, 1e-5, "rdp") == pytest.approx(today, rel=1e-3)
    assert epsilon(events, 1e-5) == pytest.approx(pld, abs=5e-3)
    ((event, times),) = counted(events).items()
    converted = min(times * sampled_divergence(event, a) + math.log(1e5) / (a - 1) for a in ORDERS)
    assert converted == pytest.approx(old, rel=5e-3)
    assert today < converted


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_rdp_agrees_with_opacus(sigma):
    accountants = pytest.importorskip("opacus.accountants")
    theirs = accountants.RDPAccountant()
    theirs.history = [(sigma, 0.02, 500)]
    assert epsilon(sampled(0.02, sigma, 500), 1e-5, "rdp") == pytest.approx(theirs.get_epsilon(1e-5), abs=1e-3)


@pytest.mark.parametrize("event", [Gaussian(1.7), PoissonSampled(0.03, Gaussian(1.1)), Laplace(0.8)])
def test_our_divergences_are_those_of_the_library(event):
    from dp_accounting import GaussianDpEvent, LaplaceDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    inner = event.event if isinstance(event, PoissonSampled) else event
    law = (GaussianDpEvent if isinstance(inner, Gaussian) else LaplaceDpEvent)(inner.noise_multiplier)
    for order in (2, 5, 32):
        accountant = RdpAccountant(orders=[order])
        accountant.compose(PoissonSampledDpEvent(0.03, law) if inner is not event else law)
        ours = sampled_divergence(event, order) if inner is not event else DIVERGENCES[type(event)](event, order)
        assert ours == pytest.approx(float(accountant._rdp[0]), rel=1e-6)


@pytest.mark.parametrize(("bits", "expected"), [(10, 6.3665), (12, 4.8540), (14, 4.7592), (16, 4.7532), (18, 4.7528)])
def test_skellam_noise_at_2_7_million_values(bits, expected):
    # C = 1, standard deviation 10, 100 releases, delta 1e-5; the Gaussian costs 4.7527 at whole orders.
    scale = 2.0**bits
    event = Skellam(100 * scale**2, *rounded_sensitivity(scale, 1.0, 2_700_000, beta=math.exp(-0.5)))
    assert cost([Repeated(event, 100)], 1e-5).epsilon == pytest.approx(expected, abs=2e-2)
    assert cost([event], 1e-5).accountant == "rdp"


def test_many_shares_of_fine_discrete_noise_cost_what_a_gaussian_does():
    l2 = 2.0**14
    shares = [Repeated(DiscreteGaussian(l2 * 10 / math.sqrt(7), 7, l2, 1000), 30)]
    gaussian = min(30 * DIVERGENCES[Gaussian](Gaussian(10.0), a) for a in ORDERS)
    assert cost(shares, 1e-5).epsilon == pytest.approx(epsilon([Repeated(Gaussian(10.0), 30)], 1e-5, "rdp"), abs=0.02)
    assert gaussian > 0
    coarse = [Repeated(DiscreteGaussian(0.8, 7, 1.0, 1000), 30)]
    fine_twin = [Repeated(Gaussian(0.8 * math.sqrt(7)), 30)]
    assert cost(coarse, 1e-5).epsilon > epsilon(fine_twin, 1e-5, "rdp")  # a sum of coarse ones is not one


def test_sampling_any_mechanism_is_bounded_by_no_sampling_and_above_the_exact_gaussian():
    plain, amplified = Skellam(1e8, 100.0, 1000.0), PoissonSampled(0.1, Skellam(1e8, 100.0, 1000.0))
    exact = PoissonSampled(0.1, Gaussian(math.sqrt(1e8) / 100.0))
    for order in (2, 4, 16):
        assert sampled_divergence(amplified, order) <= DIVERGENCES[Skellam](plain, order)
        assert sampled_divergence(amplified, order) >= sampled_divergence(exact, order) * (1 - 1e-9)


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_composing_n_times_is_n_compositions(event):
    many, one = cost([event] * 7, 1e-5).epsilon, cost([Repeated(event, 7)], 1e-5).epsilon
    assert many == one
    assert cost([Repeated(event, 14)], 1e-5).epsilon > one > cost([event], 1e-5).epsilon > 0


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_nothing_costs_nothing_and_delta_buys_epsilon(event):
    assert cost([Repeated(event, 0)], 1e-5).epsilon == 0
    assert cost([event] * 5, 1e-3).epsilon <= cost([event] * 5, 1e-6).epsilon


def test_the_order_of_events_changes_nothing():
    assert cost(EVENTS, 1e-5) == cost(EVENTS[::-1], 1e-5)


@settings(max_examples=12, deadline=None)
@given(q=st.floats(0.01, 0.5), sigma=st.floats(0.7, 5), steps=st.integers(1, 40), more=st.floats(1.2, 2))
def test_epsilon_grows_with_sampling_and_steps_and_falls_with_noise(q, sigma, steps, more):
    def price(*plan):
        return cost(sampled(*plan), 1e-5, interval=1e-3).epsilon

    base, slack = price(q, sigma, steps), 0.02
    assert price(q * more, sigma, steps) >= base - slack
    assert price(q, sigma, 2 * steps) >= base - slack
    assert price(q, sigma * more, steps) <= base + slack
    assert base <= epsilon(sampled(q, sigma, steps), 1e-5, "rdp") + slack  # the check lies above the figure of record


def test_sampling_everyone_is_no_sampling():
    assert cost([PoissonSampled(1.0, Gaussian(2.0))], 1e-5) == cost([Gaussian(2.0)], 1e-5)


def test_no_noise_costs_everything():
    assert math.isinf(cost([NonPrivate()], 1e-5).epsilon)
    assert math.isinf(epsilon([NonPrivate(), Gaussian(3.0)], 1e-5, "rdp"))


@pytest.mark.parametrize("accountant", ["gdp", "moments"])
def test_other_accountants_are_refused(accountant):
    with pytest.raises(PrivacyError, match="Allowed are 'pld' and 'rdp'"):
        epsilon([Gaussian(1.0)], 1e-5, accountant)


def test_gdp_would_have_reported_too_little():
    # Why it is refused: mu = q·√(T(e^(1/σ²) − 1)) at q = 0.032, sigma = 1, T = 1000.
    mu, (low, high) = 0.032 * math.sqrt(1000 * (math.exp(1.0) - 1)), (0.0, 50.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, mu) > 1e-4 else (low, middle)
    assert high == pytest.approx(5.33975, abs=2e-3)
    assert high < epsilon(sampled(0.032, 1.0, 1000), 1e-4) - 0.3


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5])
def test_a_delta_out_of_range_is_refused(delta):
    with pytest.raises(PrivacyError, match="Allowed is more than 0"):
        cost([Gaussian(1.0)], delta)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "1", True])
def test_noise_out_of_range_is_refused(value):
    with pytest.raises(PrivacyError, match="Allowed are finite numbers above 0"):
        Gaussian(value)


@pytest.mark.parametrize("q", [0.0, 1.01, math.nan])
def test_a_sampling_probability_out_of_range_is_refused(q):
    with pytest.raises(PrivacyError, match="at most 1"):
        PoissonSampled(q, Gaussian(1.0))


@pytest.mark.parametrize(("mu", "exact"), [(0.1, 0.340669), (0.5, 1.993091), (1.0, 4.377178), (2.0, 9.997256)])
def test_the_exact_gaussian(mu, exact):
    assert gaussian_delta(exact, mu) == pytest.approx(1e-5, rel=1e-4)
    assert gaussian_noise_multiplier(exact, 1e-5) == pytest.approx(1 / mu, rel=1e-5)


@pytest.mark.parametrize(
    ("releases", "expected"),
    [(1, (7.03, 3.73, 1.99, 1.39, 0.60)), (5, (15.7, 8.34, 4.46, 3.11, 1.34)), (20, (31.5, 16.7, 8.92, 6.22, 2.68))],
)
def test_noise_of_signature_releases(releases, expected):
    for target, sigma in zip((0.5, 1, 2, 3, 8), expected, strict=True):
        assert gaussian_noise_multiplier(target, 1e-5, releases) == pytest.approx(sigma, rel=4e-3)


@pytest.mark.parametrize(("target", "sigma"), [(1.0, 1.8796), (3.0, 0.9640), (8.0, 0.6552)])
def test_noise_is_found_for_a_plan(target, sigma):
    def plan(noise):
        return sampled(0.02, noise, 500)

    found = noise_multiplier(plan, target, 1e-5)
    assert found == pytest.approx(sigma, rel=5e-3)
    assert cost(plan(found), 1e-5).epsilon <= target
    assert cost(plan(found * 0.99), 1e-5).epsilon > target


def test_a_plan_that_no_noise_can_pay_is_refused():
    with pytest.raises(PrivacyError, match="fixed noise costs"):
        noise_multiplier(lambda noise: [*sampled(0.1, noise, 10), Gaussian(0.3)], 1.0, 1e-5)


def test_affordable_rounds():
    def rounds(number):
        return sampled(0.05, 1.0, 20 * number)

    found = affordable(rounds, 3.0, 1e-5)
    assert cost(rounds(found), 1e-5).epsilon <= 3.0 + 1e-2 < cost(rounds(found + 1), 1e-5).epsilon + 0.1
    assert affordable(rounds, 1e-3, 1e-5) == 0


@pytest.mark.parametrize("event", [*EVENTS, NonPrivate(), Repeated(PoissonSampled(0.2, Gaussian(1.0)), 3)], ids=repr)
def test_events_survive_json(event):
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "magic"},
        {"kind": "gaussian"},
        {"kind": "gaussian", "noise_multiplier": 1.0, "more": 1},
        {"kind": "gaussian", "noise_multiplier": 0.0},
        {"kind": "gaussian", "noise_multiplier": None},
        {"kind": "repeated", "count": 2, "event": {"kind": "magic"}},
        {"kind": "repeated", "count": 2, "event": 7},
        [],
    ],
)
def test_what_is_no_event_is_refused(body):
    with pytest.raises(LedgerError):
        from_json(body)


def test_every_kind_has_a_price():
    assert set(DIVERGENCES) | {PoissonSampled, Repeated} == set(KINDS.values())
