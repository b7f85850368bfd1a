"""The law of classes from sums: equal to that of the rows, whichever way the sites are added or taken out."""

import numpy as np
import pytest

from common.errors import DataError
from common.shift.class_law import ClassLaw, class_sums
from common.shift.projected import whitening


def made(seed=0, count=60, length=7, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    rows = rng.normal(size=(count, length)) * np.linspace(0.2, 2, length) + labels[:, None] * rng.normal(size=length)
    return rows, labels


def test_means_variance_and_whitening_are_those_of_the_rows():
    rows, labels = made()
    law = ClassLaw.of(rows, labels, 3)
    for label in range(3):
        assert np.allclose(law.means[label], rows[labels == label].mean(0))
    within = sum(((rows[labels == label] - law.means[label]) ** 2).sum(0) for label in range(3))
    assert np.allclose(law.variance, within / (len(rows) - 3))
    for projected in (True, False):
        mine, theirs = law.whitening(projected), whitening(rows, labels, projected)
        assert np.allclose(mine.weights, theirs.weights)
        assert np.allclose(mine(rows), theirs(rows), atol=1e-9)
        assert mine.freedom == theirs.freedom


def test_sites_add_and_come_out_again():
    (rows, labels), (more, others) = made(1), made(2, 25)
    own, other = class_sums(rows, labels, 3), class_sums(more, others, 3)
    whole = ClassLaw.of_sums({name: own[name] + other[name] for name in own})
    together = ClassLaw.of(np.concatenate([rows, more]), np.concatenate([labels, others]), 3)
    alone = ClassLaw.of(more, others, 3)
    left = whole.without(own)
    for found, wanted in ((whole, together), (left, alone)):
        assert np.allclose(found.counts, wanted.counts)
        assert np.allclose(found.means, wanted.means)
        assert np.allclose(found.variance, wanted.variance)
    assert np.allclose(whole.sums["squares"], own["squares"] + other["squares"])


def test_every_label_mix_has_the_same_projected_mean():
    rows, labels = made()
    law = ClassLaw.of(rows, labels, 3)
    projected, marginal = law.whitening(), law.whitening(projected=False)
    mixes = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    seen = np.array([projected(law.mean(mix)) for mix in mixes])
    assert np.allclose(seen, seen[0], atol=1e-10)
    moved = np.array([marginal(law.mean(mix)) for mix in mixes])
    assert np.ptp(moved, axis=0).max() > 0.1


def test_a_class_without_rows_spans_nothing():
    rows, labels = made(classes=2)
    two, three = ClassLaw.of(rows, labels, 2), ClassLaw.of(rows, labels, 3)
    assert np.allclose(two.variance, three.variance)
    assert two.whitening().freedom == three.whitening().freedom == 6
    assert not three.means[2].any()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: ClassLaw.of(np.zeros((2, 3)), np.array([0, 1]), 2), "no spread"),
        (lambda: ClassLaw.of(np.zeros((3, 3)), np.array([0, 1]), 2), "one\nlabel|one label"),
        (lambda: ClassLaw.of(np.zeros((3, 3)), np.array([0, 1, 2]), 2), "label from 0 to 1"),
        (lambda: ClassLaw(np.ones(2), np.zeros((2, 3)), -np.ones(3)), "negative"),
        (lambda: ClassLaw(np.ones(2), np.full((2, 3), np.nan), np.ones(3)), "not finite"),
        (lambda: ClassLaw(np.ones(3), np.zeros((2, 3)), np.ones(3)), "shape"),
        (lambda: ClassLaw.of(*made(count=5, length=1, classes=2), 2).whitening(), "no entry is left"),
        (lambda: ClassLaw.of(*made(), 3).without(class_sums(*made(count=90), 3)), "more images"),
    ],
)
def test_what_is_no_law_is_refused(wrong, said):
    with pytest.raises(DataError, match=said):
        wrong()
