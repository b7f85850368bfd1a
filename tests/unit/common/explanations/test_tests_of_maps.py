"""Faithfulness, sanity and stability: against hand sums, and against explanations known to be good or worthless."""

import numpy as np
import pytest
import torch
from torch import nn

from common.attention.base import AttentionModel, AttentionSite
from common.attention.recorder import Recorder
from common.config import load_run_config
from common.errors import AttentionError
from common.explanations.alike import spearman
from common.explanations.faithfulness import STEPS, area, control, curve, faithfulness, fill, ranking
from common.explanations.grad_cam import GradCam
from common.explanations.relevance import Relevance
from common.explanations.sanity import attention_matters, cascade, learnt, level, shuffle
from common.explanations.stability import stability
from common.models.build import build_model

SIDE = 20  # 400 pixels: 20 at a step


def built(name, **changes):
    settings = load_run_config({"model.name": name, "model.width": 8, **changes}).model
    return build_model(settings, 1, 1, 32, seed=0)


def images(count=3, side=32):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(2)) * 2 - 1


# ---- faithfulness


def linear(weights):
    return lambda pictures: (pictures[:, 0] * weights).sum((1, 2))


def test_deletion_and_insertion_of_a_linear_score_by_hand():
    """Pixels are 1, the filling 0 (mean taken off beforehand): after k steps the score is the sum of what is left."""
    rng = np.random.default_rng(0)
    weights = rng.random((SIDE, SIDE))
    score = linear(torch.from_numpy(weights))
    ones, zeros = torch.ones(1, 1, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    order = ranking(weights[None], 0)
    falling = np.sort(weights.ravel())[::-1]
    left = np.array([falling[20 * step :].sum() for step in range(STEPS + 1)])
    np.testing.assert_allclose(curve(score, ones, zeros, order)[:, 0], left, rtol=1e-6)
    np.testing.assert_allclose(curve(score, zeros, ones, order)[:, 0], left[0] - left, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(area(left[:, None]), [(left[:-1] + left[1:]).mean() / 2])


@pytest.mark.parametrize("filler", ["blur", "even"])
def test_a_linear_model_explained_by_its_own_share_beats_lots_and_its_opposite(filler):
    """For a linear score the best order is by w·(x − filling), which random orders meet with a net of zero."""
    pictures = images(4, SIDE)
    weights = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    share = (weights * (pictures - fill(pictures, filler))[:, 0]).numpy()
    best = share - share.min((1, 2), keepdims=True)
    found = faithfulness(linear(weights), pictures, best, filler, seed=1)
    worst = faithfulness(linear(weights), pictures, best.max() - best, filler, seed=1)
    assert (found.net > 10 * np.abs(control(linear(weights), pictures, filler, 1))).all()
    np.testing.assert_allclose(found.net, -worst.net, rtol=0.02)


def test_ties_are_broken_by_lot_and_the_same_each_time():
    flat = np.ones((2, SIDE, SIDE))
    assert np.array_equal(ranking(flat, 3), ranking(flat, 3))
    assert not np.array_equal(ranking(flat, 3), ranking(flat, 4))
    assert sorted(ranking(flat, 3)[0].tolist()) == list(range(400))
    assert ranking(flat, 3)[0].tolist() != list(range(400))


def test_fillings():
    pictures = images(2, SIDE)
    torch.testing.assert_close(fill(pictures, "even").mean((2, 3)), pictures.mean((2, 3)))
    assert fill(pictures, "even").std((2, 3)).max() < 1e-6
    flat = torch.full((1, 3, 8, 8), 0.25)
    torch.testing.assert_close(fill(flat, "blur"), flat)
    assert fill(pictures, "blur").std() < pictures.std()
    with pytest.raises(AttentionError, match="not finite"):
        faithfulness(linear(torch.ones(SIDE, SIDE)), pictures, np.full((2, SIDE, SIDE), np.nan), "even", 0)


# ---- sanity


class Edges:
    """An explanation that draws the image itself, whatever the model is."""

    def fits(self, model):
        return ""

    def __call__(self, model, images, targets=None):
        drawn = images[:, 0] + 1
        return drawn / drawn.sum((1, 2), keepdim=True)


def test_an_explanation_that_reads_no_weights_is_flagged():
    found = cascade(Edges(), built("se-convnet"), images(), None, 0)
    assert found.insensitive
    np.testing.assert_allclose(found.alike, 1)


@pytest.mark.parametrize(("explain", "name"), [(GradCam(), "se-convnet"), (Relevance(), "vit-tiny")])
def test_an_explanation_that_reads_weights_changes(explain, name):
    model = built(name)
    before = [parameter.clone() for parameter in model.parameters()]
    found = cascade(explain, model, images(), None, 0)
    assert len(found.stages) == len(found.alike) >= 5
    assert found.stages[0] == "head"
    assert abs(found.alike[-1]) < 0.5
    assert all(torch.equal(left, right) for left, right in zip(before, model.parameters(), strict=True))
    again = cascade(explain, model, images(), None, 0)
    np.testing.assert_array_equal(found.alike, again.alike)


def test_the_parts_hold_every_parameter_once():
    for name in ("se-convnet", "vit-tiny", "cbam-resnet"):
        model = built(name)
        inside = [parameter for _, part in learnt(model) for parameter in part.parameters()]
        assert {id(parameter) for parameter in inside} == {id(parameter) for parameter in model.parameters()}
        assert len(inside) == len(list(model.parameters()))


class Gated(AttentionModel):
    """The image times a gate, then its sum; the gate is even, or open on the left."""

    def __init__(self, even):
        super().__init__()
        self.even = even
        self.gate = nn.Sigmoid()
        self.attention_sites = (AttentionSite("g", "spatial-gate", "gate"),)

    def forward(self, images):
        wall = torch.zeros_like(images)
        if not self.even:
            wall[..., :16], wall[..., 16:] = 9.0, -9.0
        return (images * self.gate(wall)).mean((1, 2, 3), keepdim=False)[:, None]


def probability(model):
    return lambda pictures: (20 * model(pictures)[:, 0]).sigmoid()


def test_attention_that_could_be_anything_is_idle():
    pictures = images()
    pictures[..., :16] += 0.5
    even, real = Gated(True), Gated(False)
    idle = attention_matters(even, probability(even), pictures, 0)
    assert idle.idle
    assert idle.uniform == pytest.approx(0, abs=1e-6)
    found = attention_matters(real, probability(real), pictures, 0)
    assert not found.idle
    # by hand: an even gate of one half over the whole image
    half = (20 * (0.5 * pictures).mean((1, 2, 3))).sigmoid()
    assert found.uniform == pytest.approx(float((half - probability(real)(pictures)).abs().mean()), abs=1e-3)


@pytest.mark.parametrize("name", ["se-convnet", "vit-tiny", "cbam-resnet"])
def test_replacing_attention_leaves_the_model_as_it_was(name):
    model = built(name).train()
    found = attention_matters(model, lambda pictures: model(pictures)[:, 0].sigmoid(), images(), 0)
    assert np.isfinite([found.uniform, found.permuted]).all()
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(getattr(module, "explicit", False) for module in model.modules())


def test_even_and_shuffled_maps_are_maps():
    model = built("vit-tiny").eval()
    with torch.no_grad(), Recorder(model) as recorder:
        model(images())
        maps = recorder.take()
    for site in model.attention_sites:
        rows = maps[site.name]
        torch.testing.assert_close(level(site, rows), torch.full_like(rows, 1 / rows.shape[-1]))
        mixed = shuffle(site, rows, torch.Generator().manual_seed(0))
        torch.testing.assert_close(mixed.sort(-1).values, rows.sort(-1).values)
        assert not torch.equal(mixed, rows)
    site = AttentionSite("w", "self-attention", "x", grid=(1, 4))
    hidden = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    torch.testing.assert_close(level(site, torch.tensor([[0.9, 0.1, 0.0, 0.0]])), hidden)
    branch = AttentionSite("b", "branch", "x")
    torch.testing.assert_close(level(branch, torch.rand(2, 4, 3) + 0.1), torch.full((2, 4, 3), 0.25))


# ---- stability


def test_spearman_is_scipys_and_flat_maps_say_nothing():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 9, (3, 6, 6)), rng.random((3, 6, 6))
    wanted = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(spearman(left, right), wanted)
    assert spearman(np.ones((1, 3, 3)), rng.random((1, 3, 3))) == 0


def test_an_explanation_that_does_not_move_is_stable():
    class Fixed(Edges):
        def __call__(self, model, pictures, targets=None):
            return torch.arange(1024.0).reshape(1, 32, 32).expand(len(pictures), -1, -1)

    found = stability(Fixed(), built("se-convnet"), images(), None, 0)
    np.testing.assert_allclose(found.alike, 1)
    np.testing.assert_allclose(found.spread, 0)


def test_noise_as_an_explanation_is_not_stable():
    class Noise(Edges):
        def __call__(self, model, pictures, targets=None):
            return torch.rand(pictures[:, 0].shape)

    with torch.random.fork_rng():
        found = stability(Noise(), built("se-convnet"), images(), None, 0)
    assert (np.abs(found.alike) < 0.1).all()
    assert found.mean == pytest.approx(np.full((3, 32, 32), 0.5), abs=0.45)


def test_the_answer_that_is_explained_stays_that_of_the_clean_image():
    seen = []

    class Spy(Edges):
        def __call__(self, model, pictures, targets=None):
            seen.append(targets)
            return super().__call__(model, pictures, targets)

    model = built("se-convnet").train()
    stability(Spy(), model, images(), None, 0)
    assert model.training
    wanted = (model.eval()(images())[:, 0] > 0).long()
    assert all(torch.equal(targets, wanted) for targets in seen)
    assert len(seen) == 8
