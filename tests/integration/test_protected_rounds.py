"""Rounds under privacy and secure aggregation, over the real apps: the model as in the clear, or a clean refusal."""

import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType

import client.pooled
from client.app import app as client_app
from common.arrays import is_float
from common.errors import AggregationError, BudgetExhaustedError, ConfigError, SecureAggregationError
from common.messages import from_wire, to_wire
from common.privacy.budget import Budget
from common.privacy.events import DiscreteGaussian, Laplace, Skellam
from common.privacy.ledger import opened
from server.app import coordinate
from server.checkpoint import load_checkpoint
from simulations.engine import LocalGrid, Training, train
from tests.federations import SITES, reference, small_config, train_small

FOUR = (*SITES, "valley")
SECURE = {"secure_aggregation__enabled": True}
PRIVATE = {
    "privacy__mechanism": "gaussian",
    "privacy__fewest_patients": 1,
    "privacy__sampling_probability": 0.5,
    "privacy__signature_noise_multiplier": 1.0,
    "privacy__distance_noise_multiplier": 10.0,
    "privacy__epsilon": 16.0,
}
SHARES = {**PRIVATE, **SECURE, "privacy__placement": "distributed"}


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays.values() if is_float(array)])


def test_a_secure_sum_trains_the_same_model_as_the_clear_one():
    clear, records = reference(small_config(rounds=3))
    secure, sums = train_small(small_config(rounds=3, secure_aggregation__ring_bits=64, **SECURE))
    # AdamW passes on the last bit of a float, and the sums of floats were taken in another order.
    assert np.abs(flat(secure.arrays) - flat(clear.arrays)).max() < 1e-4
    assert secure.prior.patients == clear.prior.patients
    np.testing.assert_allclose(secure.prior.mean, clear.prior.mean, atol=1e-4)
    for plain, hidden in zip(records, sums, strict=True):
        assert plain.cohort == hidden.cohort
        assert list(hidden.train_loss) == ["(pooled)"]
        mean = np.average(list(plain.train_loss.values()), weights=[_images(site) for site in plain.train_loss])
        assert hidden.train_loss["(pooled)"] == pytest.approx(mean, rel=1e-3)


def test_a_secure_sum_has_the_proximal_term_too():
    changes = {"strategy__name": "fedprox", "strategy__mu": 1.0, "attention__every": 0}
    clear, without = (flat(train_small(small_config(**{**changes, "strategy__mu": mu}))[0].arrays) for mu in (1.0, 0.0))
    secure = flat(train_small(small_config(secure_aggregation__ring_bits=64, **changes, **SECURE))[0].arrays)
    assert np.abs(secure - clear).max() < 1e-4 < 1e-3 < np.abs(without - clear).max()


def _images(site):
    from common.data.federation import open_federation

    return len(open_federation(small_config().data).site(site).train)


def test_the_64_bit_ring_is_finer():
    clear = flat(reference(small_config(rounds=1, attention__every=0))[0].arrays)
    ends = [
        flat(
            train_small(small_config(rounds=1, attention__every=0, secure_aggregation__ring_bits=bits, **SECURE))[
                0
            ].arrays
        )
        for bits in (32, 64)
    ]
    far = [np.abs(end - clear).max() for end in ends]
    assert far[0] < 2e-3
    assert far[1] < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        PRIVATE,
        {**PRIVATE, **SECURE},
        {**SHARES, "privacy__mechanism": "skellam"},
        {**SHARES, "privacy__mechanism": "discrete-gaussian"},
        {**PRIVATE, "privacy__placement": "central"},
        {**PRIVATE, **SECURE, "privacy__placement": "central"},
        {**PRIVATE, "strategy__name": "fedadam"},
        {**SECURE, "secure_aggregation__consistency": "signed"},
    ],
    ids=lambda value: "-".join(str(each) for each in value.values()) if isinstance(value, dict) else str(value),
)
def test_every_placement_trains_to_the_end(changes, tmp_path):
    config = small_config(rounds=3, out=str(tmp_path), **changes)
    end, records = train_small(config, workers=2)
    assert end.round == 3
    assert not any(record.failures for record in records)
    assert np.isfinite(flat(end.arrays)).all()
    if config.privacy.on:
        assert all(not record.train_loss for record in records)  # a loss would be one more release
        for site in SITES:
            with opened(tmp_path / "sites" / site / "ledger", Budget(40.0, 1e-5)) as ledger:
                assert 0 < ledger.spend().epsilon <= 16.0
                releases = [entry.release for entry in ledger.entries()]
        purposes = [each.purpose for each in releases]
        assert purposes == ["training", "training", "signature", "training", "signature", "signature", "distance"]
        assert {each.placement for each in releases[:-1]} == {config.privacy.placement}
        assert releases[-1].placement == "site"  # its noise is whole, whoever adds the rest
        assert all(not record.distances for record in records[:-1])
        assert set(records[-1].distances) == set(SITES)


@pytest.mark.parametrize(("mechanism", "kind"), [("skellam", Skellam), ("discrete-gaussian", DiscreteGaussian)])
def test_every_share_of_noise_is_priced_as_what_it_is(mechanism, kind, tmp_path):
    """Metrics too: noise on the integers costs more than the normal noise that it approaches."""
    changes = {"privacy__mechanism": mechanism, "privacy__metrics_every": 1, "out": str(tmp_path)}
    train_small(small_config(rounds=1, **{**SHARES, **changes}))
    with opened(tmp_path / "sites" / "north" / "ledger", Budget(40.0, 1e-5)) as ledger:
        releases = [entry.release for entry in ledger.entries()]
    assert [each.purpose for each in releases] == ["training", "metrics", "signature", "distance"]
    events = [event for each in releases for event in each.events]
    assert [type(getattr(event, "event", event)) for event in events] == [kind, kind, kind, Laplace]


def test_noise_does_not_repeat(tmp_path):
    ends = [
        flat(train_small(small_config(rounds=1, attention__every=0, out=str(tmp_path / str(n)), **PRIVATE))[0].arrays)
        for n in range(2)
    ]
    assert (ends[0] != ends[1]).mean() > 0.9


class Losing(LocalGrid):
    """Loses one site's answer at one stage, and at every later one unless it comes back."""

    def __init__(self, config, stage, site, back=False):
        super().__init__(config, [[each] for each in FOUR], 0)
        self.stage, self.node, self.gone, self.back = stage, 2 + FOUR.index(site), False, back

    def send_and_receive(self, messages, *, timeout=None):
        sent = list(messages)
        body = sent[0].content.config_records.get("body", {})
        now = body.get("stage") or {MessageType.TRAIN: "mask", MessageType.EVALUATE: "judge"}.get(
            sent[0].metadata.message_type
        )
        self.gone = now == self.stage or (self.gone and not self.back)
        here = [message for message in sent if not (self.gone and message.metadata.dst_node_id == self.node)]
        lost = [message for message in sent if message not in here]
        answers = list(super().send_and_receive(here, timeout=timeout))
        return answers + [Message(Error(code=1, reason="lost"), reply_to=message) for message in lost]


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "vote", "unmask"])
def test_a_site_that_drops_out_at_any_stage(stage, private, tmp_path, monkeypatch):
    """The sum is that of the sites whose vectors arrived: compared with the clear run of exactly those."""
    import simulations.engine as engine

    changes = {**SECURE, "secure_aggregation__consistency": "signed", "secure_aggregation__ring_bits": 64}
    changes |= {**PRIVATE, "privacy__noise_multiplier": 0.5} if private else {}
    config = small_config(rounds=1, attention__every=0, cohort__quorum=3, out=str(tmp_path), **changes)
    monkeypatch.setattr(engine, "LocalGrid", lambda config, groups, workers: Losing(config, stage, "harbour"))
    records = []
    end = train(Training("small", config, tuple((site,) for site in FOUR)), records.append, None, 0)
    [record] = records
    assert record.failures.get("harbour") in ("unreachable", None)
    if private:
        assert np.isfinite(flat(end.arrays)).all()
        return
    arrived = FOUR if stage in ("vote", "unmask") else tuple(site for site in FOUR if site != "harbour")
    monkeypatch.undo()
    clear, _ = reference(small_config(rounds=1, attention__every=0), arrived)
    assert np.abs(flat(end.arrays) - flat(clear.arrays)).max() < 1e-6


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "vote", "unmask"])
def test_a_site_that_answers_again_is_named_by_its_first_failure(stage, monkeypatch):
    """One that was not reached for its vote refuses to unmask, which says nothing of the cause."""
    import simulations.engine as engine

    changes = {**SECURE, "secure_aggregation__consistency": "signed", "secure_aggregation__ring_bits": 64}
    config = small_config(rounds=1, attention__every=0, cohort__quorum=3, **changes)
    monkeypatch.setattr(
        engine, "LocalGrid", lambda config, groups, workers: Losing(config, stage, "harbour", back=True)
    )
    records = []
    end = train(Training("small", config, tuple((site,) for site in FOUR)), records.append, None, 0)
    assert [record.failures for record in records] == [{"harbour": "unreachable"}]
    arrived = FOUR if stage in ("vote", "unmask") else tuple(site for site in FOUR if site != "harbour")
    monkeypatch.undo()
    clear, _ = reference(small_config(rounds=1, attention__every=0), arrived)
    assert np.abs(flat(end.arrays) - flat(clear.arrays)).max() < 1e-6


def test_too_few_sites_for_a_sum_end_the_run_and_say_so(tmp_path):
    with pytest.raises(SecureAggregationError, match="a group, fewer than"):
        train_small(small_config(rounds=1, out=str(tmp_path), secure_aggregation__fewest_sites=4, **SECURE))


def test_an_exhausted_budget_stops_before_the_round_and_keeps_the_last_model(tmp_path):
    # A noise chosen by hand that pays for two of three rounds.
    changes = {**PRIVATE, "privacy__noise_multiplier": 1.0, "privacy__epsilon": 7.0, "privacy__delta": 1e-5}
    config = small_config(rounds=3, attention__every=0, out=str(tmp_path), **changes)
    with pytest.raises(BudgetExhaustedError, match="is saved and stands"):
        train_small(config)
    kept = load_checkpoint(tmp_path, config.digest())
    assert kept.round == 2
    for site in SITES:
        with opened(tmp_path / "sites" / site / "ledger", Budget(7.0, 1e-5)) as ledger:
            assert ledger.spend().epsilon <= 7.0
            assert len(ledger.entries()) == kept.round


def test_a_resumed_run_is_charged_for_what_it_repeats(tmp_path):
    config = small_config(rounds=2, attention__every=0, out=str(tmp_path), **PRIVATE)
    train_small(config)
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.raises(BudgetExhaustedError):  # the same rounds once more do not fit the budget that they filled
        train_small(config)


def test_a_site_with_too_few_patients_takes_no_part(tmp_path):
    config = small_config(rounds=1, out=str(tmp_path), **{**PRIVATE, "privacy__fewest_patients": 50})
    with pytest.raises(AggregationError, match="data"):
        train_small(config)


def test_privacy_without_a_folder_for_the_ledger_is_refused():
    with pytest.raises(AggregationError, match="config"):
        train_small(small_config(rounds=1, **PRIVATE))


class Listening(LocalGrid):
    """Keeps the scalars and texts of every answer."""

    def __init__(self, config):
        super().__init__(config, [[site] for site in SITES], 0)
        self.heard = []

    def send_and_receive(self, messages, *, timeout=None):
        answers = list(super().send_and_receive(messages, timeout=timeout))
        self.heard += [dict(answer.content.config_records["body"]) for answer in answers]
        return answers


def heard(config):
    """Run to the end and give what every site said."""
    grid = Listening(config)
    try:
        coordinate(grid, config, lambda record: None)
    finally:
        grid.close()
    return grid.heard


def test_no_count_leaves_under_privacy(tmp_path):
    for body in heard(small_config(out=str(tmp_path), **PRIVATE)):
        assert body.get("train_images", 0) == 0
        assert body.get("train_patients", 0) == 0
        assert "images" not in body
        assert "loss_sum" not in body


def test_what_crosses_the_wire_is_masked(tmp_path):
    """Two runs of one seed send vectors that differ in nearly every byte, though the models are the same."""
    found = []
    for number in range(2):
        config = small_config(rounds=1, attention__every=0, out=str(tmp_path / str(number)), **SECURE)

        class Listening(LocalGrid):
            def send_and_receive(self, messages, *, timeout=None):
                answers = list(super().send_and_receive(messages, timeout=timeout))
                for answer in answers:
                    if "segments" in answer.content.array_records:
                        record = answer.content.array_records["segments"]
                        assert list(record) == ["masked"]
                        found.append(np.frombuffer(record["masked"].data, np.uint8))
                return answers

        grid = Listening(config, [[site] for site in SITES], 0)
        try:
            coordinate(grid, config, lambda record: None)
        finally:
            grid.close()
    half = len(found) // 2
    assert half >= 3
    for one, other in zip(found[:half], found[half:], strict=True):
        # One byte in 256 agrees by chance: five standard errors more, also for a short vector.
        assert (one == other).mean() < 1 / 256 + 5 * (1 / 256 / len(one)) ** 0.5


@pytest.mark.parametrize("update", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_named_and_left_out(update, tmp_path, monkeypatch):
    import client.pooled as pooled

    plain = pooled.train_locally

    def broken(model, task, data, *rest):
        trained = plain(model, task, data, *rest)
        if data.patients[0].startswith("harbour") or len(data) == _images("harbour"):
            with __import__("torch").no_grad():
                next(model.parameters()).fill_(update)
        return trained

    monkeypatch.setattr(pooled, "train_locally", broken)
    config = small_config(rounds=1, attention__every=0, **SECURE)
    records = []
    train(Training("small", config, tuple((site,) for site in FOUR)), records.append, None, 0)
    assert records[0].failures == {"harbour": "not-finite"}


def test_counts_of_zero_are_no_mean(monkeypatch):
    plain = client.pooled.Contributor._plain
    empty = {"weight": np.array([0], np.int64), "loss": np.array([0.0])}
    monkeypatch.setattr(
        client.pooled.Contributor,
        "_plain",
        lambda self, request, seed: {**plain(self, request, seed), **empty},
    )
    with pytest.raises(AggregationError, match="hidden counts add up to none"):
        train_small(small_config(rounds=1, attention__every=0, **SECURE))


def test_a_zero_update_is_an_update(monkeypatch):
    import client.pooled as pooled
    from client.training import Trained

    monkeypatch.setattr(pooled, "train_locally", lambda model, task, data, *rest: Trained(len(data), 1.0))
    config = small_config(rounds=1, attention__every=0, secure_aggregation__ring_bits=64, **SECURE)
    end, [record] = train_small(config)
    assert not record.failures
    assert np.abs(flat(end.arrays)).max() > 0


def test_a_hospital_needs_a_key_of_its_own(tmp_path):
    from client.site import open_site

    (tmp_path / "site.toml").write_text(
        'name = "a"\nstate = "state"\n[data]\nname = "phantom"\npatients-per-site = 4\n'
    )
    with pytest.raises((ConfigError, Exception), match=r"\[secure\]|hold"):
        open_site(small_config(**SECURE), {"site-config": str(tmp_path / "site.toml")})


def test_the_ledger_says_what_left(tmp_path):
    train_small(small_config(rounds=1, attention__every=0, out=str(tmp_path), **PRIVATE))
    lines = (tmp_path / "sites" / "harbour" / "ledger" / "ledger.jsonl").read_text().splitlines()
    body = json.loads(lines[-1])["body"]
    assert body["what"] == "released"
    assert body["size"] > 1000
    assert len(body["digest"]) == 64
    assert "harbour" not in lines[-1]
    assert client_app is not None


class Lying(LocalGrid):
    """A server that changes what it asks of a site."""

    def __init__(self, config, lie):
        super().__init__(config, [[site] for site in SITES], 0)
        self.lie = lie

    def send_and_receive(self, messages, *, timeout=None):
        sent = list(messages)
        for message in sent:
            if message.metadata.message_type == MessageType.TRAIN:
                body = message.content.config_records["body"]
                message.content["body"] = ConfigRecord({**body, **self.lie})
        return super().send_and_receive(sent, timeout=timeout)


@pytest.mark.parametrize(
    ("changes", "lie"),
    [
        (PRIVATE, {"noise_multiplier": 0.0}),
        (PRIVATE, {"noise_multiplier": -1.0}),
        (PRIVATE, {"noise_multiplier": float("nan")}),
        (PRIVATE, {"measure": True}),
        ({**SHARES, "privacy__mechanism": "skellam"}, {"terms": "", "sealed": b""}),
        (SECURE, {"terms": "", "sealed": b""}),
    ],
    ids=str,
)
def test_a_server_that_asks_for_less_noise_or_more_data_gets_nothing(changes, lie, tmp_path):
    config = small_config(rounds=2, out=str(tmp_path), **{**changes, "attention__every": 5})
    grid = Lying(config, lie)
    try:
        with pytest.raises(AggregationError, match="no sum"):
            coordinate(grid, config, lambda record: None)
    finally:
        grid.close()
    for site in SITES:
        path = tmp_path / "sites" / site / "ledger" / "ledger.jsonl"
        assert not path.exists() or '"released"' not in path.read_text()


def test_little_noise_is_priced_as_such(tmp_path):
    config = small_config(rounds=2, attention__every=0, out=str(tmp_path), **PRIVATE)
    grid = Lying(config, {"noise_multiplier": 0.3})
    try:
        with pytest.raises(BudgetExhaustedError):
            coordinate(grid, config, lambda record: None)
    finally:
        grid.close()


class Failing(LocalGrid):
    """A server whose arrays make the model fail on every patient; `refused` holds what the sites then say."""

    def __init__(self, config, kind):
        super().__init__(config, [[site] for site in SITES], 0)
        self.kind, self.asked, self.refused = kind, 0, []

    def send_and_receive(self, messages, *, timeout=None):
        sent = [message for message in messages if message.metadata.message_type == self.kind]
        for message in sent:
            arrays = {name: from_wire(array) for name, array in message.content.array_records["arrays"].items()}
            broken = {name: np.full_like(each, np.nan) if is_float(each) else each for name, each in arrays.items()}
            message.content["arrays"] = ArrayRecord({name: to_wire(each) for name, each in broken.items()})
        answers = list(super().send_and_receive(messages, timeout=timeout))
        if sent:
            self.asked += 1
            self.refused += [answer.error.reason for answer in answers if answer.has_error()]
        return answers


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE])
@pytest.mark.parametrize("task", ["binary", "segmentation"])
def test_no_answer_tells_that_a_model_fails_on_a_patient(task, kind, tmp_path):
    """A refusal costs nothing: a server that chooses the arrays could ask again and again about one patient."""
    changes = {**PRIVATE, "privacy__metrics_every": 1, "task__name": task, "rounds": 1}
    changes |= {"model__name": "attention-unet"} if task == "segmentation" else {}
    config = small_config(out=str(tmp_path), **changes)
    grid = Failing(config, kind)
    try:
        with suppress(AggregationError):  # the server finds an update that is not finite
            coordinate(grid, config, lambda record: None)
    finally:
        grid.close()
    assert grid.asked == 1
    assert grid.refused == []


@pytest.mark.parametrize(
    "changes", [{**SHARES, "privacy__mechanism": "skellam"}, {**PRIVATE, **SECURE, "privacy__placement": "central"}]
)
def test_a_sum_beyond_its_bound_is_cut_and_not_refused(changes, tmp_path, monkeypatch):
    """A refusal would tell, uncharged, that a site's patients pull so hard one way."""
    monkeypatch.setattr(
        client.pooled,
        "clipped_sum",
        lambda model, *rest: ([torch.full_like(each, 1e12) for each in model.parameters()], 1),
    )
    _, [record] = train_small(small_config(rounds=1, attention__every=0, out=str(tmp_path), **changes))
    assert record.failures == {}


@pytest.mark.parametrize("changes", [{}, SECURE], ids=["clear", "secure"])
def test_counts_are_told_only_where_nothing_hides_them(changes):
    bodies = heard(small_config(rounds=1, attention__every=0, **changes))
    hellos = [body for body in bodies if body["kind"] == "Hello"]
    assert [body["train_patients"] > 0 for body in hellos] == [not changes] * 3
