"""The prior is the mean and variance of all patients, wherever they lie."""

import numpy as np
import pytest

from common.attention.prior import Prior, pool
from common.attention.signature import Signature
from common.errors import AggregationError, ProtocolError


def of(rows):
    return Signature("abc", len(rows), rows.sum(0), (rows**2).sum(0))


def test_pooled_moments_are_those_of_all_patients():
    rows = np.random.default_rng(1).random((50, 4))
    prior = pool([of(rows[:7]), of(rows[7:8]), of(rows[:0]), of(rows[8:])])
    assert prior.patients == 50
    np.testing.assert_allclose(prior.mean, rows.mean(0))
    np.testing.assert_allclose(prior.variance, rows.var(0))


def test_one_patient_has_no_variance_and_rounding_never_makes_it_negative():
    row = np.array([[0.1, 0.7, 1 / 3]])
    for copies in (1, 3, 11):
        assert (pool([of(row)] * copies).variance >= 0).all()
        np.testing.assert_allclose(pool([of(row)] * copies).variance, 0, atol=1e-15)


def test_travels_as_arrays(tmp_path):
    prior = pool([of(np.random.default_rng(2).random((5, 3)))])
    np.savez(tmp_path / "prior.npz", **prior.arrays())
    with np.load(tmp_path / "prior.npz", allow_pickle=False) as stored:
        back = Prior.from_arrays(stored)
    assert (back.schema, back.patients) == ("abc", 5)
    assert back.mean.tobytes() == prior.mean.tobytes()
    assert back.variance.tobytes() == prior.variance.tobytes()


def test_refuses_nothing_and_nonsense():
    rows = np.ones((2, 3))
    with pytest.raises(AggregationError, match="no signature arrived"):
        pool([])
    with pytest.raises(AggregationError, match="no patient"):
        pool([of(rows[:0])])
    with pytest.raises(ProtocolError, match="Only equal"):
        pool([of(rows), Signature("other", 2, rows[0], rows[0])])
    arrays = pool([of(rows)]).arrays()
    for broken in (
        {"mean": arrays["mean"]},
        {**arrays, "variance": -np.ones(3)},
        {**arrays, "mean": np.full(3, np.nan)},
        {**arrays, "variance": np.full(3, np.inf)},
        {**arrays, "mean": np.zeros(2)},
        {**arrays, "patients": np.array([0])},
        {**arrays, "patients": np.array([], np.int64)},
    ):
        with pytest.raises(ProtocolError, match="prior"):
            Prior.from_arrays(broken)
