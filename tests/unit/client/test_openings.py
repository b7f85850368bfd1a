"""A site helps to open sums of one round over one set of sites only, and remembers all of a run's rounds."""

import multiprocessing
from contextlib import suppress

import pytest

from client.openings import opening
from common.errors import RunFolderError, SecureAggregationError
from common.journal import Journal
from tests.secure_sums import params, refused

SITES = ("a", "b", "c", "d")


def opens(notes, folder, alive=SITES, **changes):
    with opening(notes, folder, params(SITES, **changes), tuple(alive)):
        pass


@pytest.fixture(params=["notes", "folder"])
def memory(request, tmp_path):
    return ({}, None) if request.param == "notes" else ({}, tmp_path / "state")


def test_the_same_sum_opens_again_and_another_does_not(memory):
    opens(*memory)
    opens(*memory, attempt=7)  # a round that is done again after a crash
    with refused("second-sum"):
        opens(*memory, alive="abc", attempt=8)


def test_a_round_in_between_makes_it_forget_nothing(memory):
    for number in range(1, 6):
        opens(*memory, round=number)
        opens(*memory, round=number, purpose="judge", alive="abc")
    with refused("second-sum"):
        opens(*memory, alive="abc", round=1)
    with refused("second-sum"):
        opens(*memory, round=1, purpose="judge")


def test_a_request_that_is_refused_is_not_remembered(memory):
    with pytest.raises(KeyError), opening(*memory, params(SITES), ("a", "b", "c")):
        raise KeyError
    opens(*memory)


def test_a_hospital_remembers_over_the_end_of_its_process(tmp_path):
    opens({}, tmp_path)
    with refused("second-sum"):
        opens({}, tmp_path, alive="abc")
    assert len(list(Journal(tmp_path / "opened-sums.jsonl"))) == 1


def test_without_room_for_the_record_nothing_is_opened(tmp_path, monkeypatch):
    def full(self, body):
        raise RunFolderError("the disk is full")

    monkeypatch.setattr(Journal, "append", full)
    left = []
    with pytest.raises(RunFolderError), opening({}, tmp_path, params(SITES), SITES):
        left.append("shares")  # they are handed on after the block, which does not end well
    monkeypatch.undo()
    opens({}, tmp_path, alive="abc")


def _race(folder, alive):
    with suppress(SecureAggregationError):
        opens({}, folder, alive=alive)


def test_two_requests_at_once_open_one_sum(tmp_path):
    context = multiprocessing.get_context("fork")
    racing = [context.Process(target=_race, args=(tmp_path, alive)) for alive in ("abc", "abcd", "abd", "bcd")]
    for each in racing:
        each.start()
    for each in racing:
        each.join()
    assert len(list(Journal(tmp_path / "opened-sums.jsonl"))) == 1
