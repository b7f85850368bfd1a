"""Temperature scaling by sums over sites: against a search over the pooled likelihood, and what must not change."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax

from common.metrics.base import Classified
from common.metrics.calibration import ExpectedCalibrationError
from common.metrics.temperature import scaled, slopes, temperature


def _binary(count: int, heat: float, seed: int) -> Classified:
    """Calibrated logits times `heat`: the right T is `heat`."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, count)
    labels = (random.random(count) < expit(logits)).astype(np.int64)
    return Classified(expit(heat * logits)[:, None], labels, np.arange(count).astype(str))


def _many(count: int, heat: float, seed: int) -> Classified:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 4))
    labels = np.array([random.choice(4, p=row) for row in softmax(logits, axis=1)])
    return Classified(softmax(heat * logits, axis=1), labels, np.arange(count).astype(str))


@pytest.mark.parametrize("make", [_binary, _many])
@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_heat_is_found_back_and_equals_a_search_over_all_images(make: object, heat: float) -> None:
    sites = [make(700, heat, 1), make(300, heat, 2)]  # type: ignore[operator]
    found = temperature(sites)

    def loss(t: float) -> float:
        total = 0.0
        for site in sites:
            p = scaled(site, t).probabilities
            p = p if p.shape[1] > 1 else np.column_stack([1 - p, p])
            total -= np.log(p[np.arange(len(p)), site.labels]).sum()
        return total

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}).x
    assert found == pytest.approx(best, rel=1e-3)
    assert found == pytest.approx(heat, rel=0.15)


def test_sums_add_across_sites_and_are_the_derivatives() -> None:
    one, two = _many(50, 2, 1), _many(70, 2, 2)
    whole = Classified(
        *(
            np.concatenate(pair)
            for pair in ((one.probabilities, two.probabilities), (one.labels, two.labels), (one.patients, two.patients))
        )
    )
    assert slopes(one, 0.7) + slopes(two, 0.7) == pytest.approx(slopes(whole, 0.7))
    step = 1e-5
    assert (slopes(whole, 0.7 + step)[0] - slopes(whole, 0.7 - step)[0]) / (2 * step) == pytest.approx(
        slopes(whole, 0.7)[1], rel=1e-5
    )


def test_calibration_improves_and_the_order_stays() -> None:
    site = _binary(4000, 4.0, 7)
    after = scaled(site, temperature([site]))
    ece = ExpectedCalibrationError()
    assert ece.value(after)[0] < 0.03 < 0.1 < ece.value(site)[0]
    assert (np.argsort(after.probabilities[:, 0]) == np.argsort(site.probabilities[:, 0])).all()


def test_a_model_that_is_always_right_or_has_no_images_gives_a_finite_temperature() -> None:
    sure = Classified(np.array([[0.9], [0.1], [1.0]]), np.array([1, 0, 1]), np.array(["a", "b", "c"]))
    assert temperature([sure]) == pytest.approx(0.05, rel=0.2)  # slope and curvature both vanish near the bound
    assert temperature([]) == 1.0
    assert np.isfinite(scaled(sure, 0.05).probabilities).all()


def test_several_labels_share_one_temperature() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (800, 3))
    labels = (random.random((800, 3)) < expit(logits)).astype(np.uint8)
    site = Classified(expit(2.5 * logits), labels, np.arange(800).astype(str))
    assert temperature([site]) == pytest.approx(2.5, rel=0.15)
    assert scaled(site, 2.5).probabilities == pytest.approx(expit(logits))
