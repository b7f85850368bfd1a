"""The in-process engine: real apps, real messages; the number of workers and their deaths change no bit."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

import client.personal.base
from client.app import app as client_app
from client.signature import measure
from client.site import MEMBERS, open_site
from client.training import train as train_locally
from common.arrays import load_arrays, model_arrays, read_arrays
from common.errors import AggregationError, ConfigError
from common.messages import TrainRequest, pack
from common.models.build import build_model
from common.seeds import derive
from server.app import coordinate
from server.checkpoint import load_checkpoint
from server.history import POOLED
from simulations.engine import LocalGrid, Training, choose_workers, train
from simulations.workers import Workers
from tests.federations import SITES, reference, same_arrays, same_checkpoint, small_config, sorted_like, train_small


@pytest.mark.parametrize(
    "name", ["fedavg", "fedprox", "fedadam", "fedyogi", "fedadagrad", "fedexp", "fedbn", "fedattnnorm"]
)
def test_workers_change_no_bit(name, tmp_path):
    runs = []
    for workers in (0, 2):
        out = str(tmp_path / str(workers))
        config = small_config(rounds=3, strategy__name=name, out=out, model__personal_attention=name == "fedattnnorm")
        runs.append(train_small(config, workers=workers))
    (first, records), (second, again) = runs
    assert first.round == 3
    assert same_checkpoint(first, second)
    assert records == again
    assert set(first.signatures) == set(SITES)
    assert first.prior.patients == sum(signature.patients for signature in first.signatures.values())


def test_each_strategy_trains_another_model():
    ends = [train_small(small_config(strategy__name=name))[0].arrays for name in ("fedavg", "fedadam", "fedyogi")]
    ends.append(train_small(small_config(strategy__name="fedprox", strategy__mu=1.0))[0].arrays)
    flat = [np.concatenate([array.ravel() for array in end.values()]) for end in ends]
    assert all(not np.array_equal(left, right) for i, left in enumerate(flat) for right in flat[:i])


def test_fedavg_over_one_site_is_local_training():
    """The global arrays after a round are the site's own: old + (new − old), up to rounding."""
    config = small_config(rounds=1, attention__every=0)
    end, [record] = train_small(config, SITES[:1])
    site = open_site(config, {MEMBERS: SITES[0]})
    model = build_model(config.model, site.federation.channels, site.task.outputs, 32, config.seed)
    seed = derive(config.seed, "site", SITES[0], "round", 1)
    trained = train_locally(model, site.task, site.data.train, config.train, seed)
    for name, array in model_arrays(model).items():
        np.testing.assert_allclose(end.arrays[name], array, rtol=1e-5, atol=1e-6)
    assert record.train_loss == {SITES[0]: trained.loss_sum / trained.images}


def test_history_tells_every_site_and_the_pool():
    _, records = reference(small_config(rounds=2))
    for number, record in enumerate(records, 1):
        assert record.round == number
        assert record.cohort == tuple(sorted(SITES))
        assert set(record.train_loss) == set(SITES)
        assert set(record.evaluation) == {*SITES, POOLED}
        assert record.failures == {}
        losses = [record.evaluation[site]["loss"] for site in SITES]
        assert min(losses) <= record.evaluation[POOLED]["loss"] <= max(losses)
    assert [record.measured for record in records] == [False, True]


def test_attention_is_measured_when_said():
    """Every second round trains with the arrays of the round before, so the first is round 3; the last always."""
    _, records = train_small(small_config(rounds=4, attention__every=2))
    assert [record.measured for record in records] == [False, False, True, True]
    end, records = train_small(small_config(rounds=2, attention__every=0))
    assert [record.measured for record in records] == [False, False]
    assert end.prior is None
    assert end.signatures == {}


@pytest.mark.parametrize("name", ["fedavg", "fedbn"])
def test_the_last_signatures_are_of_the_final_global_arrays(name, tmp_path):
    """Also under FedBN, whose sites hold other norms: a signature tells patients apart, not weights."""
    config = small_config(rounds=2, strategy__name=name, out=str(tmp_path), attention__patients=2)
    end, _ = train_small(config)
    for member in SITES:
        site = open_site(config, {MEMBERS: member})
        model = build_model(config.model, site.federation.channels, site.task.outputs, 32, config.seed)
        load_arrays(model, end.arrays)
        found = measure(model, site.data.train, config.attention, derive(config.seed, "signature", member))[0]
        assert found.total.tobytes() == end.signatures[member].total.tobytes()
        assert found.patients == end.signatures[member].patients == 2


def test_the_cohort_is_drawn_and_only_it_trains():
    _, records = train_small(small_config(rounds=4, cohort__fraction=0.5))
    assert all(len(record.cohort) == 2 == len(record.train_loss) for record in records)
    assert len({record.cohort for record in records}) > 1
    assert all(set(record.evaluation) == {*SITES, POOLED} for record in records)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_held_out_site_is_judged_and_never_trains(workers):
    """Its own images change nothing that the others learn, and its metrics stay out of the pool."""
    config = small_config(rounds=2, data__held_out="lakeside")
    end, records = train_small(config, workers=workers)
    for record in records:
        assert record.cohort == ("harbour", "north")
        assert set(record.train_loss) == {"harbour", "north"}
        assert "lakeside" in record.evaluation
    without, others = train_small(config, [site for site in SITES if site != "lakeside"])
    assert same_arrays(end.arrays, without.arrays)
    assert records[-1].evaluation[POOLED] == others[-1].evaluation[POOLED]
    assert set(end.signatures) == set(SITES)
    assert end.prior.patients == without.prior.patients


def test_a_held_out_site_that_is_asked_to_train_refuses():
    config = small_config(data__held_out="lakeside")
    grid = LocalGrid(config, [("lakeside",)], 0)
    arrays = train_small(small_config(rounds=1))[0].arrays
    request = Message(pack(TrainRequest(round=1, arrays=arrays)), dst_node_id=2, message_type="train")
    [reply] = grid.send_and_receive([request], timeout=60)
    assert reply.error.reason == "consilium:protocol"
    trains = LocalGrid(small_config(), [("lakeside",)], 0)
    [reply] = trains.send_and_receive([request], timeout=60)
    assert not reply.has_error()


def test_only_held_out_sites_make_no_run():
    with pytest.raises(AggregationError, match="0 of 0 source sites"):
        train_small(small_config(data__held_out="lakeside"), ["lakeside"])


def test_a_quorum_beyond_the_sites_is_refused_before_any_work():
    with pytest.raises(AggregationError, match=r"cohort of 3 of 3 source sites and `cohort\.quorum` is 4"):
        train_small(small_config(cohort__quorum=4))


def killing(monkeypatch, folder: Path, times: int):
    """Let the worker that trains `harbour` in round 2 be killed in the middle, `times` times."""
    train_locally = client.personal.base.train_locally

    def deadly(model, task, data, settings, seed, extras):
        if seed == derive(small_config().seed, "site", "harbour", "round", 2) and len(list(folder.iterdir())) < times:
            (folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return train_locally(model, task, data, settings, seed, extras)

    monkeypatch.setattr(client.personal.base, "train_locally", deadly)


def test_a_worker_killed_while_training_changes_no_bit(monkeypatch, tmp_path):
    undisturbed = reference(small_config(rounds=3))
    killing(monkeypatch, tmp_path, times=1)
    end, records = train_small(small_config(rounds=3), workers=2)
    assert len(list(tmp_path.iterdir())) == 1
    assert same_checkpoint(end, undisturbed[0])
    assert records == undisturbed[1]


def test_a_site_whose_worker_dies_twice_is_left_out_by_name(monkeypatch, tmp_path):
    killing(monkeypatch, tmp_path, times=2)
    _, records = train_small(small_config(rounds=3), workers=2)
    assert [record.failures for record in records] == [{}, {"harbour": "worker-lost"}, {}]
    assert set(records[1].train_loss) == {"lakeside", "north"}
    assert "harbour" in records[1].evaluation


def test_below_the_quorum_the_run_ends_and_once_cured_goes_on(monkeypatch, tmp_path):
    undisturbed = reference(small_config(rounds=3))
    deaths, out = tmp_path / "deaths", tmp_path / "run"
    deaths.mkdir()
    killing(monkeypatch, deaths, times=2)
    config = small_config(rounds=3, cohort__quorum=3, out=str(out))
    with pytest.raises(AggregationError, match=r"2 usable updates.*harbour: worker-lost"):
        train_small(config, workers=2)
    assert load_checkpoint(out, config.digest()).round == 1
    end, records = train_small(config, workers=2)
    assert same_checkpoint(sorted_like(end, undisturbed[0]), undisturbed[0])
    assert records == undisturbed[1]


def test_a_site_that_hangs_is_named_and_the_quorum_decides(monkeypatch):
    train_locally = client.personal.base.train_locally

    def hanging(model, task, data, settings, seed, extras):
        if seed == derive(small_config().seed, "site", "harbour", "round", 1):
            time.sleep(600)
        return train_locally(model, task, data, settings, seed, extras)

    monkeypatch.setattr(client.personal.base, "train_locally", hanging)
    config = small_config(rounds=1, cohort__timeout_seconds=8.0, cohort__quorum=3)
    with pytest.raises(AggregationError, match=r"2 usable updates.*\(harbour: no-reply\)"):
        train_small(config, workers=2)


def test_pooled_training_is_one_site_with_all_images():
    config = small_config(rounds=1)
    records = []
    train(Training("pooled", config, (SITES,)), records.append, workers=0)
    [record] = records
    assert record.cohort == ("north + harbour + lakeside",)
    assert set(record.evaluation) == {"north + harbour + lakeside", POOLED}


def test_how_many_workers():
    config = small_config()
    assert choose_workers(config, 4, jobs=3) == 3
    assert choose_workers(config, 4, jobs=1) == 0
    assert choose_workers(config, 1, jobs=3) == 0
    assert choose_workers(config, 0, jobs=3) == 0
    assert choose_workers(config, None, jobs=10**6) in {0, *range(2, 10**4)}


def test_fedbn_keeps_norms_at_the_site_and_needs_a_folder(tmp_path):
    with pytest.raises(AggregationError, match="config"):
        train_small(small_config(strategy__name="fedbn"))
    config = small_config(rounds=3, strategy__name="fedbn", out=str(tmp_path))
    train_small(config)
    kept = {site: read_arrays(tmp_path / "sites" / site / "local-000003.safetensors")[0] for site in SITES}
    assert all(set(arrays) == set(kept["north"]) and arrays for arrays in kept.values())
    assert not any(same_arrays(kept["north"], kept[site]) for site in SITES[1:])


def test_settings_that_differ_at_a_site_end_the_run():
    config = small_config()
    grid = LocalGrid(config, [("north",)], 0)
    grid._contexts[2].run_config["seed"] = 99
    with pytest.raises(AggregationError, match="1 of 1 sites cannot take part: protocol"):
        coordinate(grid, config)


def test_private_names_of_flower_are_where_the_engine_expects_them(monkeypatch):
    """An upgrade of flwr that moves one shows here, by name."""
    assert callable(message_from_proto)
    assert callable(message_to_proto)
    assert hasattr(ProtoMessage, "FromString")
    assert Run.create_empty(1).run_id == 1
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 0)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 5
    message = Message(RecordDict(), dst_node_id=9, message_type="train")
    assert (message.metadata.run_id, message.metadata.src_node_id) == (5, 5)
    assert "_message_id" in message.metadata.__dict__
    assert {"set_run", "run", "create_message", "get_node_ids"} <= Grid.__abstractmethods__ <= set(dir(LocalGrid))


def test_the_client_app_answers_any_rubbish_with_a_code():
    grid = LocalGrid(small_config(), [("north",)], 0)
    for kind in ("query", "train", "evaluate"):
        message = Message(RecordDict(), dst_node_id=2, message_type=kind)
        message.metadata.__dict__["_message_id"] = "1"
        assert client_app(message, grid._contexts[2]).error.reason == "consilium:protocol"


def test_messages_that_would_wait_are_refused():
    grid = LocalGrid(small_config(), [("north",)], 0)
    for call in (
        lambda: grid.push_messages([]),
        lambda: grid.pull_messages([]),
        lambda: grid.create_message(RecordDict(), "train"),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_an_unknown_site_is_refused_by_its_own_node():
    with pytest.raises(AggregationError, match="unknown-name"):
        train_small(small_config(), ["nort"])


def test_unknown_strategies_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'fedavg'"):
        train_small(small_config(strategy__name="fedavgg"))


def test_workers_of_a_grid_end_with_it(monkeypatch):
    closed = []
    close = Workers.close
    monkeypatch.setattr(Workers, "close", lambda self: (closed.append(1), close(self)))
    with pytest.raises(AggregationError):
        train_small(small_config(cohort__quorum=4), workers=2)
    assert closed
