"""History: what a round brought, on disk; after a resume the repeated round counts once."""

import pytest

from common.errors import RunFolderError
from common.journal import Journal
from server.history import NAME, POOLED, History, RoundRecord


def record(round_, loss=0.5):
    return RoundRecord(
        round=round_,
        cohort=("a", "bé"),
        train_loss={"a": loss, "bé": 1 / 3},
        evaluation={"a": {"loss": 0.1, "auroc": 2 / 3}, POOLED: {"loss": 1e-17}},
        failures={"c": "no-reply"},
        measured=round_ == 2,
        weights={"a": 0.5, "bé": 2 / 3} if round_ == 2 else {},
    )


def test_records_survive(tmp_path):
    history = History(tmp_path)
    for round_ in (1, 2, 3):
        history.append(record(round_))
    assert History(tmp_path).records() == history.records() == [record(1), record(2), record(3)]


def test_without_a_folder_they_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = History(None)
    history.append(record(1))
    assert history.records() == [record(1)]
    assert list(tmp_path.iterdir()) == []


def test_the_last_record_of_a_round_counts_and_the_first_stays_readable(tmp_path):
    history = History(tmp_path)
    for each in (record(1), record(2, loss=9.0), record(2, loss=0.25)):
        history.append(each)
    assert History(tmp_path).records() == [record(1), record(2, loss=0.25)]
    assert len(list(Journal(tmp_path / NAME))) == 3


def test_up_to_a_round(tmp_path):
    history = History(tmp_path)
    for round_ in (2, 1, 3):
        history.append(record(round_))
    assert [each.round for each in history.records(up_to=2)] == [1, 2]


@pytest.mark.parametrize("body", [{"round": 1}, {"round": 1, "cohort": 3}, {"new": 1, "cohort": []}])
def test_records_of_another_version_are_refused(tmp_path, body):
    Journal(tmp_path / NAME).append(body)
    with pytest.raises(RunFolderError, match="another version"):
        History(tmp_path)
