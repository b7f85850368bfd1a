"""DP-SGD of patients: who is drawn, what is added, and that no seed of the run touches either."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from client.private import ENGINES, trial
from client.private import auto as auto_module
from client.private.base import learning
from client.private.sampling import Patients, micro_batches
from client.private.training import PrivateTraining, clipped_sum, refuse_unprivate, train_privately
from common.arrays import model_arrays
from common.config import load_run_config
from common.data.base import Dataset
from common.errors import ConfigError, UnsupportedModelError
from common.models.build import build_model
from common.privacy.plan import steps_of
from common.randomness import SecureRandom
from common.tasks.build import build_task

TASK = build_task(load_run_config().task, ("no", "yes"), ())
KEY = bytes(range(32))


def data(patients=12, images=2, seed=0):
    random = np.random.default_rng(seed)
    count = patients * images
    names = np.repeat([f"p{number:03}" for number in range(patients)], images)
    return Dataset(
        name="made",
        images=random.integers(0, 256, (count, 1, 16, 16), dtype=np.uint8),
        patients=names.astype(str),
        sites=np.zeros(count, np.int64),
        site_names=("here",),
        labels=(np.arange(count) // images % 2).astype(np.int64),
        classes=("no", "yes"),
    )


def settings(noise=1.0, random=None, **changes):
    base = {
        "privacy.fewest-patients": 12,
        "privacy.mechanism": "gaussian",
        "train.optimizer": "sgd",
        "train.momentum": 0.0,
        "train.weight-decay": 0.0,
    }
    config = load_run_config({**base, **changes})
    return PrivateTraining(config.train, config.privacy, noise, random=random or SecureRandom())


def model(seed=1):
    return build_model(load_run_config({"model.width": 4}).model, 1, 1, 16, seed)


def test_each_patient_is_drawn_with_his_probability():
    patients, random = Patients(data(40, 3).patients, most=8), SecureRandom(KEY)
    drawn = [len(patients.sample(0.3, random)) for _ in range(500)]
    # Binomial, not a fixed number: the accountant's law. Variance 40·0.3·0.7.
    assert np.mean(drawn) == pytest.approx(12, abs=5 * (8.4 / 500) ** 0.5)
    assert np.var(drawn) == pytest.approx(8.4, rel=0.3)
    assert all(len(images) == 3 for images in patients.sample(1.0, random))


def test_at_most_so_many_images_of_a_patient():
    patients = Patients(np.array(["a"] * 9 + ["b"]), most=4)
    several = [tuple(sorted(patients.sample(1.0, SecureRandom())[0].tolist())) for _ in range(20)]
    assert {len(each) for each in several} == {4}
    assert len(set(several)) > 1  # which ones is drawn anew


def test_micro_batches_keep_patients_whole():
    drawn = [np.arange(start, start + size) for start, size in ((0, 3), (3, 3), (6, 9), (15, 1), (16, 2))]
    parts = list(micro_batches(drawn, most=6))
    assert [part.images.tolist() for part in parts] == [list(range(6)), list(range(6, 15)), [15, 16, 17]]
    assert [part.patients.tolist() for part in parts] == [[0, 0, 0, 1, 1, 1], [0] * 9, [0, 1, 1]]
    assert list(micro_batches([], 6)) == []


def test_steps_let_a_patient_be_seen_as_often_as_epochs():
    assert [steps_of(1, 0.1), steps_of(3, 0.1), steps_of(1, 1.0), steps_of(1, 0.3)] == [10, 30, 1, 3]


def test_micro_batches_change_nothing():
    totals = []
    for size in (1, 5, 64):
        chosen = settings(random=SecureRandom(KEY), **{"privacy.micro-batch": size, "train.augment": False})
        totals.append(clipped_sum(model(), TASK, data(), chosen))
    for total, drawn in totals[1:]:
        assert drawn == totals[0][1]
        for mine, first in zip(total, totals[0][0], strict=True):
            torch.testing.assert_close(mine, first, rtol=1e-4, atol=1e-6)


def test_the_update_is_the_noisy_sum_over_the_expected_number():
    # One step of plain SGD: w − lr·(Σ + σC·z)/(qN), with Σ and z drawn again from the same key.
    changes = {"privacy.sampling-probability": 1.0, "train.learning-rate": 0.5, "train.augment": False}
    trained, twin = model(), model()
    train_privately(trained, TASK, data(), settings(0.7, SecureRandom(KEY), **changes))
    chosen = settings(0.7, SecureRandom(KEY), **changes)
    total, drawn = clipped_sum(twin, TASK, data(), chosen)
    assert drawn == 12
    for name, sums in zip(learning(twin), total, strict=True):
        noise = 0.7 * chosen.random.normal(sums.numel()).reshape(sums.shape)
        expected = learning(twin)[name].detach().numpy() - 0.5 * (sums.numpy() + noise) / 12
        np.testing.assert_allclose(learning(trained)[name].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_noise_has_the_deviation_that_is_charged_for():
    # Two steps over one patient: 0.5 are expected, which counts as one, and his gradient of at most 0.5 drowns.
    changes = {"privacy.sampling-probability": 0.5, "privacy.clip-norm": 0.5, "train.learning-rate": 1.0}
    changes["privacy.fewest-patients"] = 1
    net, before = model(), model_arrays(model())
    train_privately(net, TASK, data(patients=1, images=1), settings(3.0, **changes))
    moved = np.concatenate([(model_arrays(net)[name] - before[name]).ravel() for name in before])
    low, high = stats.chi2(len(moved)).ppf([1e-6, 1 - 1e-6]) * (3.0 * 0.5 * 2**0.5) ** 2
    assert low * 0.99 < (moved**2).sum() < high * 1.01


def test_the_size_of_the_noise_does_not_tell_how_many_patients_there_are():
    changes = {"privacy.sampling-probability": 0.5, "train.learning-rate": 1.0, "privacy.clip-norm": 1e-3}
    sizes = []
    for patients in (12, 48):
        net, before = model(), model_arrays(model())
        train_privately(
            net, TASK, data(patients=patients), settings(1e3, **changes)
        )  # two steps of 6 expected patients
        moved = np.concatenate([(model_arrays(net)[name] - before[name]).ravel() for name in before])
        sizes.append(float(moved.std()))
    assert sizes == pytest.approx([2**0.5 / 6] * 2, rel=0.1)


def test_an_empty_draw_still_adds_noise():
    chosen = settings(1.0, **{"privacy.sampling-probability": 1e-6})
    total, drawn = clipped_sum(model(), TASK, data(), chosen)
    assert drawn == 0
    assert all(not each.any() for each in total)


@pytest.mark.parametrize("probability", [1e-6, 1.0])
def test_an_engine_that_refuses_a_model_does_so_whoever_was_drawn(probability, monkeypatch):
    """Else a server that sends arrays which no engine can take would learn whether anybody was drawn."""
    monkeypatch.setattr(trial, "_known", {})  # a process tries a model once
    broken = model()
    with torch.no_grad():
        for each in broken.parameters():
            each.fill_(torch.nan)
    chosen = settings(1.0, **{"privacy.sampling-probability": probability, "privacy.engine": "one-backward"})
    with pytest.raises(UnsupportedModelError):
        clipped_sum(broken, TASK, data(), chosen)


def test_two_runs_of_one_seed_have_different_noise_and_the_callers_state_is_kept():
    ends = []
    for _ in range(2):
        net = model()
        torch.manual_seed(0)
        np.random.seed(0)
        state = torch.get_rng_state()
        train_privately(net, TASK, data(), settings(1.0, **{"privacy.sampling-probability": 0.5}))
        assert torch.equal(torch.get_rng_state(), state)
        ends.append(model_arrays(net))
    assert all(not np.array_equal(ends[0][name], ends[1][name]) for name in ends[0] if ends[0][name].size > 1)


def test_augmentation_follows_from_no_seed_and_leaves_the_callers_state():
    # From a known seed, image after image, all images behind a patient's would be augmented anew when he joins.
    changes = {"privacy.sampling-probability": 1.0, "train.augment": True}
    sums = []
    for key in (KEY, KEY, None):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        sums.append(clipped_sum(model(), TASK, data(), settings(random=SecureRandom(key), **changes))[0])
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, other) for one, other in zip(sums[0], sums[1], strict=True))
    assert not any(torch.allclose(one, other, rtol=1e-3) for one, other in zip(sums[0], sums[2], strict=True))


class Remembering(nn.Module):
    """Keeps the mean of what it saw, as batch statistics do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(256, 1)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images):
        if not torch._C._functorch.is_functorch_wrapped_tensor(images):
            self.seen += images.mean().detach()
        return self.layer(images.flatten(1))


def test_a_buffer_that_keeps_something_of_patients_is_refused():
    with pytest.raises(UnsupportedModelError, match="buffer 'seen' changed"):
        train_privately(Remembering(), TASK, data(), settings(1.0, **{"privacy.sampling-probability": 1.0}))


def test_the_loss_is_not_told():
    assert train_privately(model(), TASK, data(), settings(1.0)).loss_sum == 0.0


def test_the_proximal_term_pulls_back_and_has_no_noise():
    base = settings(1e-9, SecureRandom(KEY), **{"train.learning-rate": 0.01})
    free, held = model(), model()
    train_privately(free, TASK, data(), base)
    pulled = PrivateTraining(base.train, base.privacy, 1e-9, mu=10.0, random=SecureRandom(KEY))
    train_privately(held, TASK, data(), pulled)
    start = model_arrays(model())
    far = [sum(float(((model_arrays(net)[name] - start[name]) ** 2).sum()) for name in start) for net in (free, held)]
    assert far[1] < far[0]


def test_without_noise_and_clipping_it_learns():
    chosen = settings(
        1e-6,
        **{
            "privacy.sampling-probability": 0.5,
            "privacy.clip-norm": 10.0,
            "train.local-epochs": 30,
            "train.augment": False,
            "train.optimizer": "adamw",
        },
    )
    easy = data(16, 1)
    easy.images[:] = np.where(easy.labels == 1, 200, 30)[:, None, None, None]
    net = model()
    train_privately(net, TASK, easy, chosen)
    logits = net.eval()(easy.batch(np.arange(16), torch.device("cpu")).images)[:, 0]
    assert ((logits > 0).numpy() == (easy.labels == 1)).all()


def test_guidance_is_refused():
    refuse_unprivate(guided=False)
    with pytest.raises(ConfigError, match="not clipped per patient yet"):
        refuse_unprivate(guided=True)


def test_auto_takes_the_fast_engine_for_a_default_model(monkeypatch):
    ran = []
    fast = auto_module.taken_apart
    monkeypatch.setattr(auto_module, "taken_apart", lambda *given: ran.append(1) or fast(*given))
    assert ENGINES.load("auto") is auto_module.auto
    clipped_sum(model(), TASK, data(), settings(random=SecureRandom(KEY)))
    assert ran
