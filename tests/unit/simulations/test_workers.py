"""Worker processes: order, errors, events, and what happens when one is killed or hangs."""

import os
import signal
import time

import pytest

from common.errors import ConsiliumError, DataError, SecureAggregationError, UnknownNameError
from simulations.workers import WorkerError, Workers

WORKERS = [0, 2]


def echo(request, emit):
    return b"<" + request + b">"


@pytest.mark.parametrize("count", WORKERS)
@pytest.mark.parametrize("requests", [[], [b""], [b"a", b"b"], [str(i).encode() for i in range(9)]], ids=len)
def test_answers_come_in_the_order_of_requests(count, requests):
    with Workers(count, echo) as pool:
        for _ in range(2):
            assert pool.run(requests, 60) == [echo(request, None) for request in requests]


@pytest.mark.parametrize("count", WORKERS)
def test_large_answers_arrive_whole(count):
    with Workers(count, lambda request, emit: request * 1000) as pool:
        assert pool.run([b"x" * 5000, b"y" * 5000], 60) == [b"x" * 5_000_000, b"y" * 5_000_000]


def raising(request, emit):
    if request == b"data":
        raise DataError("images hold NaN. Repair them.")
    if request == b"name":
        raise UnknownNameError("model", "vit-tinny", ["vit-tiny"])
    if request == b"other":
        raise ZeroDivisionError("division\nby zero, ü")
    return request


@pytest.mark.parametrize("count", WORKERS)
def test_errors_are_answers_and_the_rest_goes_on(count):
    with Workers(count, raising) as pool:
        first, data, name, other, last = pool.run([b"1", b"data", b"name", b"other", b"2"], 60)
        assert (first, last) == (b"1", b"2")
        assert type(data) is DataError
        assert str(data) == "images hold NaN. Repair them."
        assert type(name) is UnknownNameError
        assert "Did you mean 'vit-tiny'" in str(name)
        assert isinstance(other, WorkerError if count else ZeroDivisionError)
        assert "division\nby zero, ü" in str(other)
        assert pool.run([b"3"], 60) == [b"3"]


@pytest.mark.parametrize("count", WORKERS)
def test_events_come_with_their_index_and_before_the_answer(count):
    def counting(request, emit):
        for step in range(int(request)):
            emit(str(step).encode())
        return b"done"

    seen = []
    with Workers(count, counting) as pool:
        assert pool.run([b"3", b"0", b"2"], 60, lambda index, event: seen.append((index, event))) == [b"done"] * 3
    assert [event for index, event in seen if index == 0] == [b"0", b"1", b"2"]
    assert sorted(seen) == [(0, b"0"), (0, b"1"), (0, b"2"), (2, b"0"), (2, b"1")]


def test_a_killed_worker_is_replaced_and_its_request_tried_again(tmp_path):
    def dies_once(request, emit):
        if request == b"fatal" and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return request

    with Workers(2, dies_once) as pool:
        assert pool.run([b"a", b"fatal", b"b", b"c"], 60) == [b"a", b"fatal", b"b", b"c"]
        assert (tmp_path / "died").exists()
        assert pool.run([b"d", b"e", b"f"], 60) == [b"d", b"e", b"f"]


def test_a_request_that_kills_twice_is_given_up_and_the_others_are_answered(tmp_path):
    def dies(request, emit):
        if request == b"fatal":
            with (tmp_path / "tries").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return request

    with Workers(2, dies) as pool:
        a, fatal, b = pool.run([b"a", b"fatal", b"b"], 60)
        assert (a, b) == (b"a", b"b")
        assert isinstance(fatal, WorkerError)
        assert "killed 2 times" in str(fatal)
        assert (tmp_path / "tries").read_text() == "xx"
        assert pool.run([b"c", b"d"], 60) == [b"c", b"d"]


def test_a_worker_killed_while_idle_is_replaced():
    with Workers(2, lambda request, emit: str(os.getpid()).encode()) as pool:
        victims = {int(pid) for pid in pool.run([b""] * 8, 60)}
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        answers = pool.run([b""] * 4, 60)
        assert all(isinstance(answer, bytes) and int(answer) not in victims for answer in answers)


def test_out_of_time_gives_none_for_the_hanging_and_the_rest_stays_answered():
    """The hanging one would sleep for minutes; the quick ones are answered long before the limit."""

    def sleepy(request, emit):
        if request == b"hang":
            time.sleep(600)
        return request

    with Workers(2, sleepy) as pool:
        assert pool.run([b"hang", b"a", b"b"], 5) == [None, b"a", b"b"]
        assert pool.run([b"c", b"d"], 60) == [b"c", b"d"]


def test_an_observer_that_raises_leaves_a_pool_that_works():
    def talking(request, emit):
        emit(b"here")
        return request

    def refuse(index, event):
        raise RuntimeError("the display broke")

    with Workers(2, talking) as pool:
        with pytest.raises(RuntimeError, match="display"):
            pool.run([b"a", b"b", b"c"], 60, refuse)
        assert pool.run([b"d", b"e", b"f"], 60) == [b"d", b"e", b"f"]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_closing_ends_every_process():
    with Workers(3, lambda request, emit: str(os.getpid()).encode()) as pool:
        pids = {int(pid) for pid in pool.run([b""] * 12, 60)}
    assert os.getpid() not in pids
    assert not any(alive(pid) for pid in pids)


def test_workers_ignore_ctrl_c():
    def interrupted(request, emit):
        os.kill(os.getpid(), signal.SIGINT)
        return request

    with Workers(2, interrupted) as pool:
        assert pool.run([b"a", b"b"], 60) == [b"a", b"b"]


def test_workers_are_apart():
    """What one request changes in a worker, the parent does not see."""
    state = []

    def remember(request, emit):
        state.append(request)
        return b""

    with Workers(2, remember) as pool:
        pool.run([b"a", b"b"], 60)
    assert state == []


def test_every_error_of_the_platform_keeps_its_exit_code():
    kinds = {kind.__name__: kind for kind in _all(ConsiliumError) if kind.__module__ == "common.errors"}

    def raise_it(request, emit):
        kind = kinds[request.decode()]
        arguments = {UnknownNameError: ("model", "x", ["y"]), SecureAggregationError: ("malformed", "said so")}
        raise kind(*arguments.get(kind, ("said so",)))

    with Workers(2, raise_it) as pool:
        answers = pool.run([name.encode() for name in kinds], 60)
    assert [(type(answer), answer.exit_code) for answer in answers] == [
        (kind, kind.exit_code) for kind in kinds.values()
    ]


def _all(kind):
    return [kind, *(each for child in kind.__subclasses__() for each in _all(child))]


def test_a_request_is_made_when_a_worker_is_free_for_it():
    made = []

    class Requests:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            made.append(index)
            return bytes([index])

    seen = []
    with Workers(2, lambda request, emit: emit(b"begun") or request) as pool:
        answers = pool.run(Requests(), 30, lambda index, event: seen.append(len(made)))
    assert answers == [bytes([index]) for index in range(6)]
    assert sorted(made) == list(range(6))
    # At the first event at most the two workers' requests are made, at the next at most one more, and so on.
    assert all(count <= number + 2 for number, count in enumerate(seen))
