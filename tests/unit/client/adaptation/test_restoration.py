"""FR, BUFR and ActMAD: soft histograms against hard ones, divergences of nothing, moments by hand, and who moves."""

import numpy as np
import pytest
import torch

from client.adaptation.activations import norm_layers, stages, watching
from client.adaptation.actmad import Actmad, ActmadSettings, advanced, gap
from client.adaptation.fr import BottomUpRestoration, BufrSettings, FeatureRestoration, FrSettings
from client.adaptation.histograms import BINS, Histogram, divergence, soft_counts
from client.adaptation.source import Moments, Source
from common.config import ModelSection
from common.models.build import build_model


def make(name="se-convnet", outputs=2):
    return build_model(ModelSection(name=name, width=4), 1, outputs, 16, seed=0, dense=name == "unet").eval()


def images(count=32, seed=3, shift=0.0):
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) - 0.5 + shift


def known(model, pictures):
    """What the source is, without the sums that the product adds."""
    with torch.no_grad(), watching(model, norm_layers(model)) as found:
        z = model.features(pictures)
        model(pictures)
    low, high = z.mean(0) - 3 * z.std(0), z.mean(0) + 3 * z.std(0)
    counts = soft_counts(z, low, high)
    activations = {path: Moments(v.mean(0), v.var(0, unbiased=False)) for path, v in found.items()}
    return Source(histograms=Histogram(low, high, counts / counts.sum(1, keepdim=True)), activations=activations)


def test_soft_counts_are_hard_counts_away_from_edges_and_lose_nothing():
    low, high = torch.tensor([0.0, -4.0]), torch.tensor([1.0, 6.0])
    middles = (torch.arange(BINS) + 0.5) / BINS
    random = torch.Generator().manual_seed(0)
    cells = torch.randint(0, BINS, (50, 2), generator=random)
    values = low + (high - low) * middles[cells]
    found = soft_counts(values, low, high)
    for unit in range(2):
        np.testing.assert_allclose(found[unit], torch.bincount(cells[:, unit], minlength=BINS), atol=0.4)
    torch.testing.assert_close(found.sum(1), torch.full((2,), 50.0))
    wild = soft_counts(torch.tensor([[-1e6, 1e6]]), low, high)
    assert wild[0, 0] == 1
    assert wild[1, -1] == 1


def test_the_divergence_of_nothing_is_zero_and_by_hand_otherwise():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
    assert divergence(p, p) == 0
    kl = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    assert float(divergence(p, q)) == pytest.approx(kl)  # both directions are equal here
    assert divergence(p, torch.tensor([[0.0, 0.75, 0.25]])).isfinite()


def test_at_home_there_is_no_loss_and_away_it_falls():
    model = make()
    source = known(model, images())
    settings = FrSettings(learning_rate=0.003, window=32)
    aim = source.histograms
    method, away = FeatureRestoration(model, source, settings), images(shift=0.4)

    def loss(pictures=away):
        with torch.no_grad():
            return float(divergence(aim.shares, soft_counts(method.model.features(pictures), aim.low, aim.high) / 32))

    assert loss(images()) == pytest.approx(0, abs=1e-9)
    before = loss()
    for _ in range(15):
        method.adapt(away)
    assert loss() < 0.4 * before
    assert method.counts.updates == 15


def test_stages_go_from_the_image_to_the_head_and_leave_out_nothing():
    assert stages(make()) == (("stem", "stage1"), ("stage2",), ("stage3",))
    assert stages(make("vit"))[0] == ("embed", "class_token", "positions", "blocks.0")
    assert stages(make("vit"))[-1] == ("blocks.3", "norm")
    for name in ("resnet-ws", "vit", "se-convnet", "unet"):
        model = make(name)
        paths = [path for stage in stages(model) for path in stage]
        body = [key for key, _ in model.named_parameters() if not key.startswith("head.")]
        assert all(sum(key.startswith(f"{path}.") for path in paths) == 1 for key in body)


def test_bufr_opens_stage_after_stage():
    model = make()
    method = BottomUpRestoration(model, known(model, images()), BufrSettings(steps_per_stage=2, learning_rate=0.01))
    home = {name: value.clone() for name, value in method.model.named_parameters()}

    def moved():
        names = [name for name, value in method.model.named_parameters() if not torch.equal(value, home[name])]
        return {name.split(".")[0] for name in names}

    open_ = [{"stem", "stage1"}, {"stem", "stage1"}, {"stem", "stage1", "stage2"}]
    for wanted in open_:
        method.adapt(images(shift=0.4))
        assert moved() == wanted
    for _ in range(4):
        method.adapt(images(shift=0.4))
    assert moved() == {"stem", "stage1", "stage2", "stage3"}


def test_actmad_by_hand():
    source = {"a": Moments(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]))}
    values = torch.tensor([[0.0, 2.0], [2.0, 4.0]])
    running = {"a": (source["a"].mean, source["a"].variance + source["a"].mean.square())}
    _, whole = advanced(running, {"a": values}, 1.0)
    torch.testing.assert_close(whole["a"].mean, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(whole["a"].variance, torch.tensor([1.0, 1.0]))
    assert float(gap(whole, source)) == pytest.approx((0 + 1) / 2 + (0.5 + 0.5) / 2)
    kept, part = advanced(running, {"a": values}, 0.25)
    torch.testing.assert_close(part["a"].mean, torch.tensor([1.0, 2.25]))
    torch.testing.assert_close(kept["a"][1], torch.tensor([0.75 * 1.5 + 0.25 * 2, 0.75 * 4.5 + 0.25 * 10]))


def test_actmad_has_no_loss_at_home_and_closes_the_gap_away():
    model = make()
    source = known(model, images())
    running = {path: (m.mean, m.variance + m.mean.square()) for path, m in source.activations.items()}

    def loss(body, pictures):
        with torch.no_grad(), watching(body, list(running)) as found:
            body(pictures)
        return float(gap(advanced(running, found, 1.0)[1], source.activations))

    assert loss(model, images()) == pytest.approx(0, abs=1e-4)
    method, away = Actmad(model, source, ActmadSettings(learning_rate=2e-3)), images(shift=0.4)
    before = loss(method.model, away)
    for _ in range(15):
        method.adapt(away)
    assert loss(method.model, away) < 0.7 * before


def test_norm_layers_inside_attention_are_left_to_it():
    model = make("vit")
    assert norm_layers(model) == (
        *(f"blocks.{i}.{n}" for i in range(4) for n in ("before_attention", "before_mlp")),
        "norm",
    )
    assert len(norm_layers(make())) == 3
