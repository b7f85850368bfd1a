"""Guidance in a federation: each switch changes what is learnt, none changes nothing, and a run can be resumed."""

import math

import numpy as np
import pytest

from client.evaluation import LossSum, predict
from client.guidance import GUIDANCE
from client.site import MEMBERS, open_site
from client.store import Store
from common.arrays import load_arrays
from common.attention.distance import add_w
from common.attention.personal import personal_parameters
from common.attention.schema import schema_of
from common.errors import AggregationError, ConfigError
from common.models.build import build_model
from common.models.norms import norm_parameters
from server.checkpoint import load_checkpoint
from server.rounds import Stopped
from server.strategies.fedavg import FedAvg
from tests.federations import SITES, same_arrays, same_checkpoint, small_config, sorted_like, train_small
from tests.integration.test_resume import stopping

ROUNDS = 4


def config(out, **weights):
    settings = {f"guidance__{name}": value for name, value in weights.items()}
    return small_config(rounds=ROUNDS, out=str(out), data__patients_per_site=8, **settings)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train_small(config(tmp_path_factory.mktemp("plain")))[0].arrays


@pytest.mark.parametrize("name", sorted(GUIDANCE))
def test_each_switch_changes_something(name, plain, tmp_path):
    end, records = train_small(config(tmp_path, **{name: 0.5}))
    assert not any(record.failures for record in records)
    assert not same_arrays(end.arrays, plain)
    assert all(np.isfinite(array).all() for array in end.arrays.values())


def test_workers_change_no_bit_under_all_of_it(tmp_path):
    weights = dict.fromkeys(GUIDANCE, 0.1)
    first, _ = train_small(config(tmp_path / "0", **weights))
    second, _ = train_small(config(tmp_path / "2", **weights), workers=2)
    assert same_checkpoint(first, second)


def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path):
    weights = {"alignment": 0.2, "adversary": 0.1}
    whole, _ = train_small(config(tmp_path / "whole", **weights))
    run, _ = stopping(config(tmp_path / "broken", **weights), after=3)
    with pytest.raises(Stopped):
        run()
    assert load_checkpoint(tmp_path / "broken").round == 3
    found, _ = train_small(config(tmp_path / "broken", **weights))
    assert same_checkpoint(sorted_like(found, whole), whole)


def test_the_prior_waits_until_the_start(plain, tmp_path):
    """With a start after the last round's progress, 3/4, the prior is never read; just before it, once."""
    late, _ = train_small(config(tmp_path / "late", band=0.5, start=0.76))
    once, _ = train_small(config(tmp_path / "once", band=0.5, start=0.75))
    assert same_arrays(late.arrays, plain)
    assert not same_arrays(once.arrays, plain)


def test_terms_that_read_the_prior_need_it_measured():
    with pytest.raises(ConfigError, match=r"guidance.alignment.*'attention.every' is 0"):
        small_config(guidance__band=0.1, attention__every=0)


def test_a_site_without_masks_or_attention_says_so(tmp_path):
    with pytest.raises(AggregationError, match="attention"):
        train_small(small_config(guidance__teacher=0.1, model__name="convnet", model__attention="none"))


# ---- attention that stays at the site, and weights that follow it


def test_manners_of_attention_stay_at_the_site(tmp_path):
    """Under FedAttnNorm a site's arrays differ from the global ones in norms and personal parameters alone."""
    settings = {"strategy__name": "fedattnnorm", "model__personal_attention": True, "train__learning_rate": 0.05}
    made = small_config(rounds=3, out=str(tmp_path), **settings)
    end, records = train_small(made)
    assert not any(record.failures for record in records)
    model = build_model(made.model, 1, 1, 32, seed=0)
    personal, norms = personal_parameters(model), norm_parameters(model)
    kept = {site: Store(tmp_path / "sites" / site).load(3) for site in SITES}
    for arrays in kept.values():
        assert set(arrays) == {*personal, *norms}
        assert any(not np.array_equal(arrays[name], end.arrays[name]) for name in personal)
    first, second = (kept[site] for site in SITES[:2])
    assert any(not np.array_equal(first[name], second[name]) for name in personal)
    other = train_small(small_config(rounds=3, out=str(tmp_path / "avg"), model__personal_attention=True))[0]
    assert not same_arrays(end.arrays, other.arrays)


def test_manners_of_attention_survive_a_stop(tmp_path):
    """The same arrays at the server and at every site, and the same weights in the history, to the bit."""
    settings = {
        "strategy__name": "fedattnnorm",
        "model__personal_attention": True,
        "strategy__attention_weights": "fair",
    }
    whole, records = train_small(small_config(rounds=4, out=str(tmp_path / "whole"), **settings))
    run, _ = stopping(small_config(rounds=4, out=str(tmp_path / "broken"), **settings), after=2)
    with pytest.raises(Stopped):
        run()
    found, seen = train_small(small_config(rounds=4, out=str(tmp_path / "broken"), **settings), workers=2)
    assert same_checkpoint(sorted_like(found, whole), whole)
    assert seen == records
    assert [len(record.weights) for record in records] == [0, 3, 3, 3]
    for site in SITES:
        kept = [Store(tmp_path / run_ / "sites" / site).load(4) for run_ in ("whole", "broken")]
        assert kept[0]
        assert same_arrays(*kept)


def test_a_held_out_site_uses_the_averaged_manners(tmp_path):
    """It keeps nothing; its loss is that of the global arrays. A source site's is that of its own."""
    made = small_config(
        rounds=2,
        out=str(tmp_path),
        data__held_out="lakeside",
        strategy__name="fedattnnorm",
        model__personal_attention=True,
        train__learning_rate=0.05,
    )
    end, records = train_small(made)
    assert not list((tmp_path / "sites" / "lakeside").glob("local-*"))
    for member in SITES:
        site, losses = open_site(made, {MEMBERS: member}), []
        for own in ({}, Store(tmp_path / "sites" / member).load(2)):
            model = build_model(made.model, 1, 1, 32, seed=0)
            load_arrays(model, {**end.arrays, **own})
            loss = LossSum()
            predict([model], site.task, site.data.val, loss)
            losses.append(loss.value / len(site.data.val))
        seen = records[-1].evaluation[member]["loss"]
        assert seen == pytest.approx(losses[1], rel=1e-6)
        assert (losses[0] == losses[1]) == (member == "lakeside")


def test_fedattnnorm_needs_a_model_that_has_something_to_keep():
    with pytest.raises(ConfigError, match=r"'model.personal-attention' is false.*Set it to true"):
        small_config(strategy__name="fedattnnorm")


def far_from_the_others(checkpoint, made):
    """One-vs-rest distances, the mean of the others taken patient by patient."""
    schema, found = schema_of(build_model(made.model, 1, 1, 32, seed=0)), checkpoint.signatures
    far = {}
    for site in SITES:
        rest = [found[name] for name in SITES if name != site]
        mean = sum(each.total for each in rest) / sum(each.patients for each in rest)
        far[site] = add_w(schema, found[site].mean, mean)
    return far


@pytest.mark.parametrize("mode", ["robust", "fair"])
def test_weights_follow_attention_from_the_first_measurement_on(mode, monkeypatch):
    """Round 2 measures the arrays of round 1 while it trains, and is the first whose weights know of it."""
    given, aggregate = [], FedAvg.aggregate
    monkeypatch.setattr(FedAvg, "aggregate", lambda self, *both: (given.append(both[1]), aggregate(self, *both))[1])
    once, _ = train_small(small_config(rounds=1))
    plain, (_, unweighed) = train_small(small_config(rounds=2))
    end, (first, second) = train_small(small_config(rounds=2, strategy__attention_weights=mode))
    assert (first.weights, unweighed.weights) == ({}, {})
    far = far_from_the_others(once, small_config())
    near, middle, outlier = sorted(SITES, key=far.__getitem__)
    power = {
        site: 1 - (d / far[middle]) ** 2 if mode == "robust" else d / far[middle] / 2 - 0.5 for site, d in far.items()
    }
    wanted = {site: min(2.0, max(0.5, math.exp(value))) for site, value in power.items()}
    assert second.weights == pytest.approx(wanted, abs=1e-6)
    less, more = (outlier, near) if mode == "robust" else (near, outlier)
    assert second.weights[less] < 1 == second.weights[middle] < second.weights[more]
    images = {item.site: item.weight for item in given[2]}  # of the plain run
    assert {item.site: item.weight / images[item.site] for item in given[-1]} == pytest.approx(wanted)
    assert not same_arrays(end.arrays, plain.arrays)


@pytest.mark.parametrize(("every", "rounds"), [(0, 4), (2, 2)])
def test_weights_need_a_measurement(every, rounds):
    with pytest.raises(ConfigError, match=rf"is 'fair', 'attention.every' is {every}.*0 < attention.every < rounds"):
        small_config(strategy__attention_weights="fair", attention__every=every, rounds=rounds)
