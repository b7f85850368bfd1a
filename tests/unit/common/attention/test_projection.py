"""Long signatures are projected: bounded, near their distances, the same everywhere, and without blocks."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats
from scipy.stats import beta
from torch import nn

from client.guidance.alignment import Alignment
from client.guidance.band import Band
from client.guidance.base import Known, Seen
from common.attention import schema as schema_module
from common.attention.distance import add_w, block_values, js_blocks, w_blocks
from common.attention.prior import pool
from common.attention.projection import LONGEST, PROJECTED, projection
from common.attention.recorder import Recorder
from common.attention.reduction import Reduction
from common.attention.schema import schema_of
from common.attention.signature import SignatureMeter, measuring, signatures
from common.errors import AttentionError
from simulations.shift_rows import schema_for
from simulations.tabulate_training import distance_rows

HEADS, LONG = 120, 33 + 2 * 120


class Sharpened(nn.Module):
    """Softmax of one head's scores at many temperatures."""

    def __init__(self) -> None:
        super().__init__()
        self.sharp = nn.Parameter(torch.linspace(0.1, 9, HEADS)[:, None, None])

    def forward(self, scores):
        return (scores * self.sharp).softmax(-1)


class FirstOf(nn.Module):
    """Makes many heads, of which the first is mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = Sharpened()

    def forward(self, scores):
        return self.maps(scores)[:, :1]


@pytest.fixture
def wide(tokens_class):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tokens_class(layers=1, heads=1)
    model.layers[0].weights = FirstOf()
    model.attention_sites = (replace(model.attention_sites[0], heads=HEADS, module="layers.0.weights.maps"),)
    return model.eval()


@pytest.mark.parametrize("length", [PROJECTED, LONGEST + 1, 300, 2000])
def test_rows_are_orthonormal(length):
    rows = projection(length)
    assert rows.shape == (PROJECTED, length)
    np.testing.assert_allclose(rows @ rows.T, np.eye(PROJECTED), atol=1e-12)


@given(arrays(np.float64, 300, elements=floats(-1, 1)))
def test_no_vector_becomes_longer(vector):
    assert np.linalg.norm(projection(300) @ vector) <= np.linalg.norm(vector) + 1e-12


@pytest.mark.parametrize("length", [LONGEST + 1, 400, 1000])
def test_distances_are_kept_within_the_spread_of_johnson_and_lindenstrauss(length):
    """The share of a squared distance that is left follows Beta(k/2, (d - k)/2) for one vector and a random frame."""
    rng = np.random.default_rng(length)
    law = beta(PROJECTED / 2, (length - PROJECTED) / 2)
    points = [rng.dirichlet(np.full(length, 0.3), 400), rng.random((400, length)), np.eye(length)[:200]]
    for rows in points:
        gaps = rows[::2] - rows[1::2]
        left = np.square(gaps @ projection(length).T).sum(1) / np.square(gaps).sum(1)
        assert law.ppf(1e-6) <= left.min()
        assert left.max() <= law.isf(1e-6)
        assert left.mean() == pytest.approx(PROJECTED / length, rel=0.05)
    assert law.std() / law.mean() <= (2 / PROJECTED) ** 0.5


def test_is_the_same_in_another_process():
    code = "from common.attention.projection import projection; print(projection(300).tobytes().hex())"
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[4],
        env={"PYTHONHASHSEED": "5", "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    there = np.frombuffer(bytes.fromhex(output.strip())).reshape(PROJECTED, 300)
    np.testing.assert_allclose(there, projection(300), atol=1e-14)


def test_a_long_signature_is_its_blocks_projected(wide, images):
    schema = schema_of(wide)
    assert (schema.entries, schema.length, schema.projected) == (LONG, PROJECTED, True)
    reduction = Reduction(schema, wide.attention_sites)
    with measuring(wide), Recorder(wide, reduction.sites, reduction) as recorder:
        wide(images)
        (plain,) = recorder.take().values()
    found = signatures(wide, images)
    assert found.shape == (5, PROJECTED)
    np.testing.assert_allclose(found, plain.numpy() @ projection(LONG).T, atol=1e-12)
    assert (found.norm(dim=1) <= plain.norm(dim=1)).all()


def test_long_signatures_add(wide, images):
    rows = signatures(wide, images).numpy()
    meter = SignatureMeter(wide)
    meter.add(images, ["a", "b", "a", "a", "c"])
    found = meter.finish()
    means = np.stack([rows[[0, 2, 3]].mean(0), rows[1], rows[4]])
    np.testing.assert_allclose(found.total, means.sum(0), atol=1e-9)
    np.testing.assert_allclose(pool([found, found]).variance, means.var(0), atol=1e-9)
    assert np.linalg.norm(found.total - means[:2].sum(0)) <= 1


def test_a_short_signature_is_not_projected(gated_class):
    schema = schema_of(gated_class())
    assert not schema.projected
    assert schema.length == schema.entries <= LONGEST


def test_the_projection_is_part_of_the_meaning(wide, gated_class, monkeypatch):
    long, short = schema_of(wide).id, schema_of(gated_class()).id
    monkeypatch.setattr(schema_module, "SEED", 1)
    assert schema_of(wide).id != long
    assert schema_of(gated_class()).id == short


def test_says_why_there_are_no_blocks(wide, images):
    schema, mean = schema_of(wide), signatures(wide, images).mean(0).numpy()
    for use in (schema.split, lambda mean: block_values(schema, mean)):
        with pytest.raises(AttentionError, match=r"no blocks: the 273 entries of its 8 blocks are mixed into 128\."):
            use(mean)
    for compare in (add_w, w_blocks, js_blocks):
        with pytest.raises(AttentionError, match=r"ADD-W and JS need 256 entries or fewer.*ADD-M"):
            compare(schema, mean, mean)
    with pytest.raises(AttentionError, match=r"shape \(3,\)"):
        schema.split(np.zeros(3))
    with pytest.raises(AttentionError, match="273 entries and is projected"):
        schema_for(wide)


def test_a_report_of_a_projected_run_has_no_distances(wide, images):
    meter = SignatureMeter(wide)
    meter.add(images, list("abcde"))
    assert distance_rows(schema_of(wide), {"x": meter.finish().mean, "y": meter.finish().mean}) == ([], [])


def test_guidance_compares_projected_entries_only_where_no_flip_reaches_them(wide, images):
    schema, rows = schema_of(wide), signatures(wide, images)
    meter = SignatureMeter(wide)
    meter.add(images, list("abcde"))
    with Recorder(wide) as recorder:
        wide(images)
        seen = Seen(None, wide.attention_sites, schema, recorder.take(), {})
    assert seen.rows.requires_grad
    np.testing.assert_allclose(seen.rows.detach(), rows, atol=1e-6)
    prior, classes = pool([meter.finish()]), rows[:2].numpy()
    known = {
        flips: Known(model=wide, schema=schema, prior=prior, own=classes[0], classes=classes, flips=flips)
        for flips in (True, False)
    }
    assert known[False].told().tolist() == [True] * PROJECTED
    assert known[True].told().tolist() == [False] * PROJECTED
    for term in (Alignment, Band):
        assert term(known[True])(seen).tolist() == [0] * 5
        assert term(known[False])(seen).isfinite().all()
    assert Alignment(known[False])(seen).abs().max() > 0
