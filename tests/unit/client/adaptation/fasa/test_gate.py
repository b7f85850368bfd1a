"""The gate: opens at drift, not at another mix of classes; its null is counts that add across sites."""

import numpy as np
import pytest
import torch

from client.adaptation.fasa.gate import WINDOW, Ruler
from client.adaptation.fasa.null_sums import null_of, null_sums
from common.errors import DataError
from common.shift.class_law import ClassLaw, class_sums
from common.shift.nulls import thresholds, window_statistic
from common.shift.projected import whitening

LENGTH = 12
APART = np.linspace(4, -2, LENGTH)


def images(count, prevalence, rng, moved=0.0, per_patient=1):
    """Rows of two classes that lie apart; a site is moved in directions of its own; patients have their own level."""
    labels = (rng.random(count) < prevalence).astype(np.int64)
    patients = np.arange(count) // per_patient
    own = rng.normal(size=(patients.max() + 1, LENGTH))[patients]
    rows = rng.normal(size=(count, LENGTH)) + (own if per_patient > 1 else 0) + labels[:, None] * APART + moved
    return rows, labels, np.array([f"p{number}" for number in patients])


@pytest.fixture(scope="module")
def sites():
    rng = np.random.default_rng(0)
    moves = rng.normal(0, 0.3, (4, LENGTH))
    return [images(400, share, rng, move) for share, move in zip((0.3, 0.5, 0.6, 0.5), moves, strict=True)]


def law_of(sites):
    return ClassLaw.of(np.concatenate([s[0] for s in sites]), np.concatenate([s[1] for s in sites]), 2)


def added(sites):
    law = law_of(sites)
    parts = [null_sums(*site, law) for site in sites]
    return null_of({name: sum(part[name] for part in parts) for name in parts[0]})


def opening(ruler, threshold, prevalence, moved=0.0):
    rng = np.random.default_rng(7)
    windows = [images(WINDOW, prevalence, rng, moved)[0] for _ in range(100)]
    return np.mean([ruler.distance(rows) > threshold for rows in windows])


def test_the_distance_is_that_of_the_shift_studies(sites):
    rows, labels, _ = sites[0]
    law = ClassLaw.of(rows, labels, 2)
    ruler = Ruler.of(law, law.counts / law.counts.sum())
    window = sites[1][0][:WINDOW]
    assert ruler.distance(window) == pytest.approx(window_statistic(window, rows, whitening(rows, labels)), rel=1e-9)


def test_any_class_mixture_gives_the_same_value(sites):
    law = law_of(sites)
    window = sites[2][0][:WINDOW]
    mixes = np.random.default_rng(1).dirichlet(np.ones(2), 10)
    found = [Ruler.of(law, mix).distance(window) for mix in mixes]
    assert np.allclose(found, found[0])
    marginal = [Ruler.of(law, mix, projected=False).distance(window) for mix in mixes]
    assert np.ptp(marginal) > 0.1


def test_the_loss_is_the_distance_and_its_gradient_vanishes_at_the_mean_of_any_mix(sites):
    law = law_of(sites)
    ruler = Ruler.of(law, np.array([0.5, 0.5]))
    rows = sites[3][0][:WINDOW]
    mean = torch.from_numpy(rows.mean(0)).requires_grad_(True)
    loss = ruler.loss(mean)
    assert float(loss.detach()) == pytest.approx(ruler.distance(rows), rel=1e-9)
    loss.backward()
    assert float(mean.grad.abs().max()) > 0.01
    for share in (0.0, 0.5, 0.9):
        at = torch.from_numpy(law.mean(np.array([1 - share, share]))).requires_grad_(True)
        ruler.loss(at).backward()
        assert float(at.grad.abs().max()) < 1e-10


def test_prevalence_alone_opens_the_marginal_gate_and_not_the_projected_one(sites):
    null = added(sites)
    law = law_of(sites)
    for share in (0.1, 0.9):
        assert opening(Ruler.of(law, np.array([0.5, 0.5])), null.thresholds.site, share) <= 0.05
        assert opening(Ruler.of(law, np.array([0.5, 0.5]), projected=False), null.thresholds.site, share) >= 0.9


def test_drift_opens_the_gate_at_any_prevalence(sites):
    null = added(sites)
    ruler = Ruler.of(law_of(sites), np.array([0.5, 0.5]))
    for share in (0.1, 0.5, 0.9):
        assert opening(ruler, null.thresholds.site, share, moved=np.where(np.arange(LENGTH) % 3, 0.0, 2.0)) == 1


def test_known_sites_are_no_alarm_although_their_patients_do_not_explain_them(sites):
    null = added(sites)
    assert 0 < null.thresholds.sample < null.thresholds.site
    for left_out in range(4):
        rows = sites[left_out][0]
        others = law_of([site for place, site in enumerate(sites) if place != left_out])
        ruler = Ruler.of(others, np.array([0.5, 0.5]))
        found = [ruler.distance(rows[place : place + WINDOW]) for place in range(0, 300, WINDOW)]
        assert np.mean([value > null.thresholds.site for value in found]) < 0.3
        assert np.mean([value > null.thresholds.sample for value in found]) > 0.5


def test_the_null_from_counts_is_the_null_from_rows(sites):
    """Oracle: the thresholds of the shift studies, which hold all rows in one place and draw other windows."""
    named = {str(place): (site[0], site[1]) for place, site in enumerate(sites)}
    wanted = thresholds(named, whitening, WINDOW, 3, windows=500)
    found = added(sites).thresholds
    assert found.site == pytest.approx(wanted.site, rel=0.15)
    assert found.sample == pytest.approx(wanted.sample, rel=0.35)


def test_windows_are_of_whole_patients(sites):
    """Images of one patient resemble each other: a null of single images would call a patient's stay an alarm."""
    rng = np.random.default_rng(5)
    clustered = [images(400, 0.5, rng, move, per_patient=16) for move in np.zeros(3)]
    one_each = [(rows, labels, np.array([str(i) for i in range(len(rows))])) for rows, labels, _ in clustered]
    assert added(clustered).thresholds.sample > 2 * added(one_each).thresholds.sample


def test_one_source_site_is_its_own_null(sites):
    null = added(sites[:1])
    assert null.thresholds.site == pytest.approx(null.thresholds.sample, rel=0.05)


def test_a_site_that_is_no_part_of_all_is_refused(sites):
    rows = sites[0][0]
    other_mix = class_sums(np.concatenate([rows, rows]), np.zeros(800, np.int64), 2)
    with pytest.raises(DataError, match="more images"):
        null_sums(*sites[0], ClassLaw.of_sums(other_mix))
    with pytest.raises(DataError, match="no window"):
        null_of({"site": np.zeros(3), "sample": np.zeros(3)})
