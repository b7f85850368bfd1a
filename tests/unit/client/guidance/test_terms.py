"""Each term of guidance by hand, by another library, or by an identity."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional as F

from client.guidance.adversary import Adversary
from client.guidance.alignment import Alignment, variation
from client.guidance.anatomy import Anatomy, atlas, share_outside
from client.guidance.band import Band
from client.guidance.base import Seen
from client.guidance.guidance import Guidance
from client.guidance.masks import Masks
from client.guidance.teacher import divergence
from common.attention.anatomy import disc
from common.attention.base import AttentionSite
from common.attention.prior import Prior
from common.attention.recorder import Recorder
from common.attention.signature import signatures
from common.errors import ConfigError, DataError
from common.shift.projected import TAU, Whitening, basis
from tests.contracts.test_guidance import batch_of, guided, known_of, make, moved


def seen_with(rows=None, picture=None, masks=None):
    return SimpleNamespace(rows=rows, picture=picture, batch=SimpleNamespace(masks=masks))


@pytest.mark.parametrize("body", ["gates", "tokens", "channels"])
def test_seen_rows_are_the_signatures_with_gradients(body):
    model, batch = make(body).eval(), batch_of()
    known = known_of(model)
    with Recorder(model) as recorder:
        model(batch.images)
        rows = Seen(batch, model.attention_sites, known.schema, recorder.take(), {}).rows
    assert rows.requires_grad
    np.testing.assert_allclose(rows.detach(), signatures(model, batch.images, known.schema), atol=1e-6)


# ---- teacher


def test_a_model_agrees_with_itself():
    model = make("tokens")
    loss = guided(Guidance(known_of(model), {"teacher": 1.0}), model, batch_of())
    torch.testing.assert_close(loss, torch.zeros(6), atol=1e-6, rtol=0)


def test_divergences_are_torchs():
    random = torch.Generator().manual_seed(0)
    gates = torch.rand(2, 3, 5, generator=random) * 0.98 + 0.01
    site = AttentionSite("gate", "channel-gate", "gate")
    wanted = kl_divergence(Bernoulli(gates[0]), Bernoulli(gates[1])).mean(1)
    torch.testing.assert_close(divergence(site, gates[0], gates[1]), wanted)
    rows = torch.rand(2, 3, 2, 4, 4, generator=random).softmax(-1)
    tokens = AttentionSite("self", "self-attention", "x", grid=(2, 2))
    wanted = kl_divergence(Categorical(rows[0]), Categorical(rows[1])).mean((1, 2))
    torch.testing.assert_close(divergence(tokens, rows[0], rows[1]), wanted)
    branch = AttentionSite("branch", "branch", "x")
    rows = torch.rand(2, 3, 4, 5, generator=random).softmax(2)
    wanted = kl_divergence(Categorical(rows[0].transpose(1, 2)), Categorical(rows[1].transpose(1, 2))).mean(1)
    torch.testing.assert_close(divergence(branch, rows[0], rows[1]), wanted)


# ---- alignment


def test_the_mean_of_the_images_gradients_is_that_of_the_functional():
    """∇_w F(mean_i s(x_i; w)) by autograd = mean_i ∇_w L(x_i), at m̃ = mean_i s(x_i; w)."""
    model, batch = make("gates"), batch_of(8)
    known = known_of(model)
    with Recorder(model) as recorder:
        model(batch.images)
        rows = Seen(batch, model.attention_sites, known.schema, recorder.take(), {}).rows
    own = rows.mean(0).detach().double().numpy()
    term = Alignment(known_of(model, own=own))

    weights = 1 / np.sqrt(known.prior.variance + TAU)
    span = torch.from_numpy(basis((known.classes[1:] - known.classes[:1]) * weights)).float()
    white = (rows.mean(0) - torch.from_numpy(known.prior.mean).float()) * torch.from_numpy(weights).float()
    left = white - span @ (span.T @ white)
    functional = 0.5 * left.square().sum() / (len(white) - span.shape[1])

    parameters = list(model.parameters())
    one = torch.autograd.grad(functional, parameters, retain_graph=True, allow_unused=True)
    loss = term(SimpleNamespace(rows=rows)).mean()
    two = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert any(grad is not None and grad.abs().max() > 1e-4 for grad in one)
    scale = max(float(grad.abs().max()) for grad in one if grad is not None)
    for left_, right in zip(one, two, strict=True):
        assert (left_ is None) == (right is None)
        if left_ is not None:
            torch.testing.assert_close(left_ / scale, right / scale, rtol=1e-4, atol=1e-6)


def test_the_variation_is_the_derivative_of_half_d2():
    random = np.random.default_rng(0)
    weights, directions = random.uniform(1, 5, 6), basis(random.normal(size=(2, 6)))
    whiten, own, wanted = Whitening(weights, directions), random.normal(size=6), random.normal(size=6)

    def half(mean):
        return 0.5 * (whiten(mean - wanted) ** 2).sum() / whiten.freedom

    step = 1e-6
    slow = [(half(own + step * e) - half(own - step * e)) / (2 * step) for e in np.eye(6)]
    np.testing.assert_allclose(variation(own, wanted, whiten), slow, rtol=1e-5, atol=1e-6)


def test_another_mix_of_classes_is_not_pulled():
    """m̃ = any mixture of the site's class means, μ another: the difference lies inside what is projected away."""
    model = make("gates")
    known = known_of(model)
    mixed = 0.9 * known.classes[0] + 0.1 * known.classes[1]
    prior = Prior(known.schema.id, 40, 0.2 * known.classes[0] + 0.8 * known.classes[1], known.prior.variance)
    term = Alignment(known_of(model, own=mixed, prior=prior))
    free = Alignment(known_of(model, own=mixed, prior=prior, classes=None))
    assert term.gradient.abs().max() < 1e-3 * free.gradient.abs().max()


def test_flips_take_the_maps_out():
    model = make("gates")
    known = known_of(model, flips=True)
    told = known.told()
    for block in known.schema.blocks:
        turned = block.kind == "map" or block.name in ("geom", "received_prof")
        assert told[block.start : block.start + block.size].all() != turned
    assert len(Alignment(known).gradient) == int(told.sum()) < known.schema.length


# ---- band


def test_the_band_by_hand():
    model = make("channels")
    known = known_of(model)
    mean = torch.from_numpy(known.prior.mean).float()
    spread = torch.from_numpy(known.prior.variance + TAU).sqrt().float()
    rows = torch.stack([mean, mean + 2.9 * spread, mean.clone()])
    rows[2, 0] += 5 * spread[0]
    rows[2, 1] -= 4 * spread[1]
    found = Band(known)(seen_with(rows))
    wanted = torch.tensor([0.0, 0.0, (2.0**2 + 1.0**2) / len(mean)])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


# ---- anatomy


def test_the_share_inside_the_region():
    region = torch.zeros(4, 4)
    region[:2] = 1
    maps = torch.full((3, 4, 4), 1 / 16)
    maps[1] = 0
    maps[1, 0, 0] = 1
    maps[2] = 0
    maps[2, 3, 3] = 1
    found = Anatomy(known_of(make("gates"), region=region))(seen_with(picture=maps))
    wanted = torch.tensor([-math.log(0.5 + 1e-6), -math.log(1 + 1e-6), -math.log(1e-6)])
    torch.testing.assert_close(found, wanted)


def test_a_region_of_another_size_is_refused():
    term = Anatomy(known_of(make("gates"), region=disc(8, 8)))
    with pytest.raises(DataError, match=r"region of guidance is \(8, 8\) and images are \(16, 16\)"):
        term(seen_with(picture=torch.full((1, 16, 16), 1 / 256)))


def test_the_disc_covers_pi_quarters():
    assert disc(200, 100).mean().item() == pytest.approx(math.pi / 4, abs=0.01)
    assert disc(9, 9)[4, 0] == 1
    assert disc(9, 9)[0, 0] == 0


def test_the_atlas_is_the_blurred_mean_of_the_masks():
    masks = torch.zeros(4, 24, 24, dtype=torch.uint8)
    masks[:, 4, 4] = 1
    found = atlas(masks, flips=False)
    wanted = torch.zeros(24, 24)
    wanted[2:7, 2:7] = 1
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(atlas(masks, flips=True), torch.maximum(wanted, wanted.flip(1)))
    with pytest.raises(ConfigError, match="none with foreground"):
        atlas(torch.zeros(2, 8, 8), flips=False)


def test_the_share_of_masks_outside():
    region = torch.zeros(4, 4)
    region[:2] = 1
    masks = torch.zeros(1, 4, 4)
    masks[0, 1:3, 0] = 1
    assert share_outside(region, masks) == 0.5
    assert share_outside(region, torch.zeros(0, 4, 4)) == 0.0


# ---- masks


def test_masks_by_hand():
    """A map equal to the mask costs nothing; an even one (1 − p) + (1 − 2p / (1 + p)); no mask, nothing."""
    masks = torch.zeros(3, 4, 4, dtype=torch.uint8)
    masks[:2, 0] = 2
    maps = torch.full((3, 4, 4), 1 / 16)
    maps[0] = 0
    maps[0, 0] = 0.25
    found = Masks(known_of(make("gates")))(seen_with(picture=maps, masks=masks))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.75 + 1 - 0.5 / 1.25, 0.0]))


def test_without_any_mask_nothing_is_asked():
    maps = torch.full((2, 4, 4), 1 / 16, requires_grad=True)
    assert not Masks(known_of(make("gates")))(seen_with(picture=maps)).any()


def test_masks_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"masks are \(8, 8\) and images are \(4, 4\)"):
        Masks(known_of(make("gates")))(seen_with(picture=torch.ones(1, 4, 4) / 16, masks=torch.ones(1, 8, 8)))


# ---- adversary


@pytest.mark.parametrize(("progress", "ramp"), [(0.0, 0.0), (0.5, 0.98661), (1.0, 0.99991)])
def test_the_ramp(progress, ramp):
    assert Adversary(known_of(make("gates"), progress=progress)).ramp == pytest.approx(ramp, abs=1e-5)


def test_the_critic_learns_what_can_be_told_and_not_what_cannot():
    """Rows drawn from the law itself cannot be told: BCE stays near ln 2. Rows far away can."""
    known = known_of(make("gates"))
    mean = torch.from_numpy(known.prior.mean).float()
    spread = torch.from_numpy(known.prior.variance + TAU).sqrt().float()
    random = torch.Generator().manual_seed(0)
    losses = {}
    for shift in (0.0, 1.0):
        term = Adversary(known)
        for _ in range(300):
            rows = mean + spread * (torch.randn(64, len(mean), generator=random) + shift)
            loss = term(seen_with(rows))
        losses[shift] = -float(loss.mean()) / term.ramp
    assert losses[0.0] == pytest.approx(math.log(2), abs=0.15)
    assert losses[1.0] < 0.3


def test_the_model_is_pushed_towards_what_the_critic_takes_for_the_law():
    known = known_of(make("gates"))
    term = Adversary(known)
    mean = torch.from_numpy(known.prior.mean).float()
    spread = torch.from_numpy(known.prior.variance + TAU).sqrt().float()
    for _ in range(200):
        rows = (mean + 2 * spread).repeat(16, 1).requires_grad_()
        loss = term(seen_with(rows)).mean()
    (grad,) = torch.autograd.grad(loss, rows)
    answer = term.critic(((rows - mean) / spread).detach())[:, 0]
    assert F.binary_cross_entropy_with_logits(answer, torch.zeros(16)) < 0.2
    # descending the loss lowers the rows, back to the mean of the law
    assert ((grad * spread).sum(1) > 0).all()


def test_training_on_a_term_moves_attention_where_it_says():
    """Plain SGD on the anatomy term alone: more attention inside the region."""
    model = moved(make("gates"))
    region = torch.zeros(16, 16)
    region[:, :5] = 1
    guidance, batch = Guidance(known_of(model, region=region), {"anatomy": 1.0}), batch_of(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = guided(guidance, model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
