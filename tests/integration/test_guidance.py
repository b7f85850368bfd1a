"""Guidance in a federation: each switch changes what is learnt, none changes nothing, and a run can be resumed."""

import numpy as np
import pytest

from client.guidance import GUIDANCE
from client.store import Store
from common.attention.personal import personal_parameters
from common.errors import AggregationError, ConfigError
from common.models.build import build_model
from common.models.norms import norm_parameters
from server.checkpoint import load_checkpoint
from server.rounds import Stopped
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
    settings = {
        "strategy__name": "fedattnnorm",
        "model__personal_attention": True,
        "strategy__attention_weights": "fair",
    }
    whole, _ = train_small(small_config(rounds=4, out=str(tmp_path / "whole"), **settings))
    run, _ = stopping(small_config(rounds=4, out=str(tmp_path / "broken"), **settings), after=2)
    with pytest.raises(Stopped):
        run()
    found, _ = train_small(small_config(rounds=4, out=str(tmp_path / "broken"), **settings))
    assert same_checkpoint(sorted_like(found, whole), whole)


def test_fedattnnorm_needs_a_model_that_has_something_to_keep():
    with pytest.raises(ConfigError, match=r"'model.personal-attention' is false.*Set it to true"):
        small_config(strategy__name="fedattnnorm")


@pytest.mark.parametrize("mode", ["robust", "fair"])
def test_weights_follow_attention_from_the_first_measurement_on(mode, tmp_path):
    """Round 2 measures while it trains, so that round 3 is the first whose weights know of attention."""
    made = small_config(rounds=3, strategy__attention_weights=mode)
    plain = small_config(rounds=3)
    ends = {}
    for name, config_ in (("weighed", made), ("plain", plain)):
        ends[name] = [train_small(config_.replace({"rounds": rounds}))[0] for rounds in (2, 3)]
    assert same_arrays(ends["weighed"][0].arrays, ends["plain"][0].arrays)  # nothing was measured before round 2
    assert not same_arrays(ends["weighed"][1].arrays, ends["plain"][1].arrays)


def test_weights_need_a_measurement():
    with pytest.raises(ConfigError, match=r"'strategy.attention-weights' is 'fair' and 'attention.every' is 0"):
        small_config(strategy__attention_weights="fair", attention__every=0)
