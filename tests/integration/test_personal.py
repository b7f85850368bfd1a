"""Strategies by which each hospital has arrays of its own: what stays, what is shared, and who uses what."""

import threading

import numpy as np
import pytest
from flwr.app import Message

from client.evaluation import LossSum, predict
from client.own import COPY, WEIGHT, below, own_arrays
from client.site import MEMBERS, open_site
from client.store import Store
from client.training import train as train_locally
from common.arrays import load_arrays, model_arrays
from common.config_checks import ANCHORED, PERSONAL
from common.errors import AggregationError, ConfigError
from common.messages import TOGETHER, TrainRequest, pack
from common.models.build import build_model
from common.models.norms import norm_statistics
from common.seeds import derive
from server.rounds import Stopped
from server.strategies import STRATEGIES
from server.strategies.fedper import FedPer
from simulations.engine import LocalGrid, Training, train
from tests.federations import SITES, same_arrays, same_checkpoint, small_config, sorted_like, train_small

OWN_MODELS = ("fedrep", "ditto", "mr-mtl", "apfl")
FAST = {"rounds": 2, "attention__every": 0, "train__learning_rate": 0.05}


def kept(folder, round_=2):
    return {site: Store(folder / "sites" / site).load(round_) for site in SITES}


def built(config):
    return build_model(config.model, 1, 1, 32, config.seed)


def alone(config, member, rounds):
    """Train one site by itself, with the seeds that its rounds have in the federation."""
    site, model = open_site(config, {MEMBERS: member}), built(config)
    for number in range(1, rounds + 1):
        seed = derive(config.seed, "site", member, "round", number)
        train_locally(model, site.task, site.data.train, config.train, seed)
    return model_arrays(model)


def loss_of(config, member, arrays):
    """The validation loss of a site's images under these arrays, computed outside the federation."""
    site, loss = open_site(config, {MEMBERS: member}), LossSum()
    model = built(config)
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


def test_fedrep_needs_something_to_share():
    with pytest.raises(ConfigError, match=r"leaves no parameter to share.*take 'mr-mtl'"):
        train_small(small_config(strategy__name="fedrep", strategy__personal="stem, stage*"))


@pytest.mark.parametrize(
    "request_", [{"manner": "dance"}, {"manner": ""}, {"keep_local": ("head.weight", "tail")}], ids=str
)
def test_a_request_for_what_a_site_cannot_do_is_refused(request_, tmp_path):
    config = small_config(out=str(tmp_path))
    grid = LocalGrid(config, [("north",)], 0)
    asked = TrainRequest(round=1, arrays=model_arrays(built(config)), **request_)
    [reply] = grid.send_and_receive([Message(pack(asked), dst_node_id=2, message_type="train")], timeout=60)
    grid.close()
    assert reply.error.reason == "consilium:protocol"
    assert not list(tmp_path.rglob("local-*"))


@pytest.mark.parametrize("name", ["fedper", *OWN_MODELS])
def test_guidance_goes_with_every_manner(name, tmp_path):
    """A teacher changes what is trained; the shared model of Ditto and APFL is that of FedAvg with the same teacher."""
    guided = {**FAST, "guidance__teacher": 0.5}
    end, records = train_small(small_config(**guided, strategy__name=name, out=str(tmp_path / "guided")))
    assert not any(record.failures for record in records)
    if name in ("ditto", "apfl"):
        assert same_arrays(end.arrays, train_small(small_config(**guided))[0].arrays)
    else:
        plain = train_small(small_config(**FAST, strategy__name=name, out=str(tmp_path / "plain")))[0]
        assert not same_arrays(end.arrays, plain.arrays)


def test_statistics_need_norms_that_have_some():
    with pytest.raises(ConfigError, match=r"@statistics.*GroupNorm and LayerNorm keep none"):
        train_small(small_config(strategy__name="silobn"))


def test_a_run_without_a_folder_is_told_which_settings_need_one():
    with pytest.raises(AggregationError, match="config"):
        train_small(small_config(**FAST, strategy__name="fedper"))


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_MODELS)
def test_a_stopped_run_goes_on_in_workers_as_if_it_had_not_stopped(name, tmp_path):
    """With a cohort of two of three, so that some site's own are older than the round before."""

    def config(folder):
        changes = {**FAST, "rounds": 3, "cohort__fraction": 0.6, "strategy__name": name}
        return small_config(**changes, out=str(tmp_path / folder))

    whole, records = train_small(config("whole"))
    stop = threading.Event()
    seen = []

    def after_two(record):
        seen.append(record)
        if record.round == 2:
            stop.set()

    with pytest.raises(Stopped):
        train(Training("small", config("broken"), tuple((site,) for site in SITES)), after_two, stop, 0)
    end, again = train_small(config("broken"), workers=2)
    assert same_checkpoint(sorted_like(end, whole), whole)
    assert again == records
    tables = kept(tmp_path / "whole", 3), kept(tmp_path / "broken", 3)
    assert all(same_arrays(tables[0][site], tables[1][site]) for site in SITES)
    assert all(tables[0].values())


@pytest.mark.parametrize("name", OWN_MODELS)
def test_a_hospital_is_judged_with_its_own_and_a_held_out_one_with_what_is_shared(name, tmp_path):
    config = small_config(**FAST, strategy__name=name, out=str(tmp_path), data__held_out="lakeside")
    end, records = train_small(config)
    own = kept(tmp_path)
    assert own["lakeside"] == {}
    for member in SITES:
        expected = loss_of(config, member, own_arrays(end.arrays, own[member]))
        assert records[-1].evaluation[member]["loss"] == pytest.approx(expected, rel=1e-6)
        assert (expected == loss_of(config, member, end.arrays)) == (member == "lakeside")


@pytest.fixture(scope="module")
def averaged():
    return train_small(small_config(**FAST))


@pytest.mark.parametrize("name", ["ditto", "apfl"])
def test_the_shared_model_is_fedavgs_to_the_bit(name, tmp_path, averaged):
    end, records = train_small(small_config(**FAST, strategy__name=name, out=str(tmp_path)))
    assert same_checkpoint(end, averaged[0])
    assert [record.train_loss for record in records] == [record.train_loss for record in averaged[1]]
    assert records[-1].evaluation != averaged[1][-1].evaluation


def test_without_a_pull_ditto_and_mr_mtl_are_local_training(tmp_path):
    """Each site's own arrays are those of a training that no federation had a part in, to the bit."""
    tables = {}
    for name in ("ditto", "mr-mtl"):
        config = small_config(**FAST, strategy__name=name, strategy__pull=0.0, out=str(tmp_path / name))
        train_small(config)
        tables[name] = kept(tmp_path / name)
    for member in SITES:
        expected = alone(config, member, 2)
        assert same_arrays(sorted_by(expected, below(tables["ditto"][member], COPY)), expected)
        assert same_arrays(sorted_by(expected, tables["mr-mtl"][member]), expected)


def sorted_by(other, arrays):
    return {name: arrays[name] for name in other}


def test_the_server_of_mr_mtl_holds_the_mean_of_the_sites_models(tmp_path):
    config = small_config(**FAST, strategy__name="mr-mtl", strategy__pull=0.5, out=str(tmp_path))
    end, _ = train_small(config)
    own = kept(tmp_path)
    images = {site: len(open_site(config, {MEMBERS: site}).data.train) for site in SITES}
    for name, array in end.arrays.items():
        mean = sum(images[site] * own[site][name].astype(np.float64) for site in SITES) / sum(images.values())
        np.testing.assert_allclose(array, mean, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not same_arrays(own["north"], own["harbour"])


def test_each_site_of_apfl_learns_its_own_weight(tmp_path):
    train_small(small_config(**FAST, strategy__name="apfl", out=str(tmp_path)))
    weights = {float(table[WEIGHT]) for table in kept(tmp_path).values()}
    assert len(weights) == 3
    assert 0.5 not in weights


def test_statistics_differ_and_scales_are_shared_under_silobn(tmp_path):
    config = small_config(**FAST, strategy__name="silobn", model__batch_norm=True, out=str(tmp_path))
    end, records = train_small(config)
    own, names = kept(tmp_path), set(norm_statistics(built(config)))
    assert all(set(own[site]) == names for site in SITES)
    assert {name.rpartition(".")[2] for name in names} == {"running_mean", "running_var", "num_batches_tracked"}
    for name in names:
        same = [np.array_equal(own["north"][name], own[site][name]) for site in SITES[1:]]
        assert name.endswith("tracked") or not any(same), name
    for member in SITES:
        expected = loss_of(config, member, {**end.arrays, **own[member]})
        assert records[-1].evaluation[member]["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ANCHORED)
def test_parts_of_its_own_do_not_go_with_ways_from_the_global_arrays(name):
    with pytest.raises(ConfigError, match=r"'strategy.personal' = 'head' sites begin elsewhere.*take 'fedavg'"):
        small_config(strategy__name=name, strategy__personal="head")


def test_a_pull_that_sgd_would_leap_over_is_refused():
    """On (λ/2) x² heavy-ball SGD converges for η λ < 2 (1 + m): Polyak 1964."""
    sgd = {"train__optimizer": "sgd", "train__learning_rate": 0.1, "train__momentum": 0.5}
    for name in ("ditto", "mr-mtl"):
        small_config(**sgd, strategy__name=name, strategy__pull=29.9)
        with pytest.raises(ConfigError, match=r"'strategy.pull' is 30.*below.*= 30; lower one"):
            small_config(**sgd, strategy__name=name, strategy__pull=30.0)
    small_config(**sgd, strategy__pull=30.0)


def test_a_repeated_run_and_one_in_workers_end_alike(tmp_path):
    runs = []
    for workers in (0, 2):
        out = str(tmp_path / str(workers))
        runs.append(train_small(small_config(**FAST, strategy__name="fedper", out=out), workers=workers))
    (first, records), (second, again) = runs
    assert same_checkpoint(sorted_like(second, first), first)
    assert records == again
    assert all(same_arrays(kept(tmp_path / "0")[site], kept(tmp_path / "2")[site]) for site in SITES)
