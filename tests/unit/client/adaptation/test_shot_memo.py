"""SHOT-IM's information by brute force, its pseudo-labels by hand; MEMO's views, and that no image helps the next."""

import math

import pytest
import torch

from client.adaptation.answers import entropy, log_probabilities
from client.adaptation.memo import Memo, MemoSettings
from client.adaptation.shot_im import ShotIm, ShotSettings, information, pseudo_labels
from client.adaptation.source import Source
from client.adaptation.views import views
from common.config import ModelSection
from common.models.build import build_model


def make(outputs=2, name="se-convnet"):
    return build_model(ModelSection(name=name, width=4), 1, outputs, 16, seed=0).eval()


def images(count=8, seed=3):
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_information_is_that_of_image_and_class():
    """I(image; class) = Σ_i Σ_k (1/N) p_ik ln(p_ik / p_k), added up one by one."""
    log_p = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(1)
    p = log_p.exp().tolist()
    mean = [sum(row[k] for row in p) / 7 for k in range(3)]
    wanted = sum(row[k] / 7 * math.log(row[k] / mean[k]) for row in p for k in range(3))
    assert float(information(log_p)) == pytest.approx(-wanted)
    assert float(information(log_p[:1])) == pytest.approx(0, abs=1e-12)


def test_pseudo_labels_by_hand():
    """Two clear clusters; one image of the first is called the second class by the model and is put right."""
    features = torch.tensor([[1.0, 0.1], [1, 0], [1, -0.1], [0, 1], [0.1, 1], [-0.1, 1]])
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
    assert pseudo_labels(features, p.log()).tolist() == [0, 0, 0, 1, 1, 1]


def test_shot_raises_information_and_leaves_the_classifier():
    for weight in (0.0, 0.3):
        method = ShotIm(make(), Source(), ShotSettings(steps=10, pseudo_weight=weight))
        before = information(log_probabilities(method.model(images())))
        method.adapt(images())
        assert information(log_probabilities(method.model(images()))) < before
    assert not any(name.startswith("head") for name in method.adapted())


def test_shot_skips_an_image_alone():
    method = ShotIm(make(), Source())
    method.adapt(images(1))
    assert (method.counts.updates, method.counts.skipped) == (0, 1)


def test_views_keep_what_labels_rest_on():
    random = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-0.8, 0.8, 16).expand(40, 1, 16, 16)
    for seen in (views(ramp, random), views(ramp, random, shift=False)):
        assert seen.shape == ramp.shape
        assert seen.min() >= -1
        assert seen.max() <= 1
        assert (seen[..., 12:].mean((1, 2, 3)) > seen[..., :4].mean((1, 2, 3)) + 0.2).all(), "left stays left"
        assert len({float(view.mean()) for view in seen}) == 40
    still = torch.zeros(40, 1, 16, 16)
    still[:, :, 5, 9] = 1
    assert (views(still, random, shift=False).flatten(1).argmax(1) == 5 * 16 + 9).float().mean() > 0.9


def test_memo_lowers_the_marginal_entropy_of_its_image_and_starts_anew_with_the_next():
    settings = MemoSettings(views=8, learning_rate=0.01, steps=3)
    method = Memo(make(), Source(), settings)
    before = entropy(log_probabilities(method.model(images())))
    together = method.adapt(images())
    sure = entropy(together.clamp(1e-12, 1).log())
    assert (sure < before).float().mean() > 0.8
    method.reset()
    alone = [method.adapt(image[None]) for image in images()]
    assert torch.equal(torch.cat(alone), together)
    assert method.counts.updates == 3 * 8
    assert torch.equal(method.predict(images()), method.told(make()(images())))
