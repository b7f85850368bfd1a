"""Strategies by which each hospital has arrays of its own: what stays, what is shared, and who uses what."""

import numpy as np
import pytest

from client.evaluation import LossSum, predict
from client.own import own_arrays
from client.site import MEMBERS, open_site
from client.store import Store
from common.arrays import load_arrays
from common.config_checks import PERSONAL
from common.errors import AggregationError, ConfigError
from common.messages import TOGETHER
from common.models.build import build_model
from server.strategies import STRATEGIES
from server.strategies.fedper import FedPer
from tests.federations import SITES, same_arrays, same_checkpoint, small_config, sorted_like, train_small

FAST = {"rounds": 2, "attention__every": 0, "train__learning_rate": 0.05}


def kept(folder, round_=2):
    return {site: Store(folder / "sites" / site).load(round_) for site in SITES}


def loss_of(config, member, arrays):
    """The validation loss of a site's images under these arrays, computed outside the federation."""
    site, loss = open_site(config, {MEMBERS: member}), LossSum()
    model = build_model(config.model, 1, 1, 32, seed=0)
    load_arrays(model, arrays)
    predict([model], site.task, site.data.val, loss)
    return loss.value / len(site.data.val)


def test_the_list_of_those_refused_under_privacy_is_that_of_those_that_keep():
    """`common` cannot read the strategies, so it has a list; here it is held against what they declare."""
    keeping = {
        name for name in STRATEGIES if STRATEGIES.load(name).personal or STRATEGIES.load(name).manner != TOGETHER
    }
    assert set(PERSONAL) == keeping


@pytest.mark.parametrize("name", PERSONAL)
@pytest.mark.parametrize("protection", ["privacy.mechanism", "secure-aggregation.enabled"])
def test_strategies_that_keep_arrays_are_refused_where_only_sums_are_seen(name, protection):
    change = {"privacy__mechanism": "gaussian"} if "privacy" in protection else {"secure_aggregation__enabled": True}
    with pytest.raises(ConfigError, match=r"keeps arrays at each site.*take 'fedavg'"):
        small_config(strategy__name=name, model__personal_attention=True, **change)
    with pytest.raises(ConfigError, match=r"strategy.personal.*keeps arrays at each site"):
        small_config(strategy__personal="head", **change)


def test_the_head_stays_and_the_body_is_shared(tmp_path):
    config = small_config(**FAST, strategy__name="fedper", out=str(tmp_path), data__held_out="lakeside")
    end, records = train_small(config)
    own = kept(tmp_path)
    assert set(own["north"]) == set(own["harbour"]) == {"head.weight", "head.bias"}
    assert own["lakeside"] == {}
    assert not np.array_equal(own["north"]["head.weight"], own["harbour"]["head.weight"])
    for member in SITES:
        expected = loss_of(config, member, own_arrays(end.arrays, own[member]))
        assert records[-1].evaluation[member]["loss"] == pytest.approx(expected, rel=1e-6)
        assert (expected == loss_of(config, member, end.arrays)) == (member == "lakeside")


def test_without_a_head_fedper_is_fedavg_to_the_bit(monkeypatch, tmp_path):
    monkeypatch.setattr(FedPer, "personal", ())
    plain, records = train_small(small_config(**FAST))
    end, seen = train_small(small_config(**FAST, strategy__name="fedper", out=str(tmp_path)))
    assert same_checkpoint(end, plain)
    assert seen == records
    assert not list((tmp_path / "sites").glob("**/local-*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_paths_of_the_user_are_added_to_those_of_the_strategy(tmp_path, workers):
    """fedbn with the head is fedavg with norms and head, to the bit."""
    first = small_config(**FAST, strategy__name="fedbn", strategy__personal=" head.*", out=str(tmp_path / "a"))
    other = small_config(**FAST, strategy__personal="@head,@norms", out=str(tmp_path / "b"))
    (end, records), (again, seen) = train_small(first, workers=workers), train_small(other)
    assert same_checkpoint(end, again)
    assert records == seen
    tables = kept(tmp_path / "a"), kept(tmp_path / "b")
    assert "head.bias" in tables[0]["north"]
    assert all(same_arrays(tables[0][site], tables[1][site]) for site in SITES)


def test_a_path_that_matches_nothing_ends_the_run_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"'haed'.*Near are 'head'"):
        train_small(small_config(strategy__personal="haed", out=str(tmp_path)))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_statistics_need_norms_that_have_some():
    with pytest.raises(ConfigError, match=r"@statistics.*GroupNorm and LayerNorm keep none"):
        train_small(small_config(strategy__name="silobn"))


def test_a_run_without_a_folder_is_told_which_settings_need_one():
    with pytest.raises(AggregationError, match="config"):
        train_small(small_config(**FAST, strategy__name="fedper"))


def test_a_repeated_run_and_one_in_workers_end_alike(tmp_path):
    runs = []
    for workers in (0, 2):
        out = str(tmp_path / str(workers))
        runs.append(train_small(small_config(**FAST, strategy__name="fedper", out=out), workers=workers))
    (first, records), (second, again) = runs
    assert same_checkpoint(sorted_like(second, first), first)
    assert records == again
    assert all(same_arrays(kept(tmp_path / "0")[site], kept(tmp_path / "2")[site]) for site in SITES)
