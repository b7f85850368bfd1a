"""The mean of the last rounds: by hand, in the run, and through a restart."""

import threading

import numpy as np
import pytest

from common.config import load_run_config
from server.averaging import judged_arrays
from server.checkpoint import Checkpoint, load_checkpoint
from server.rounds import Stopped
from tests.federations import SITES, same_arrays, same_checkpoint, small_config, sorted_like, train_small


def config(share, rounds):
    return load_run_config({"rounds": rounds, "attention.every": 0, "strategy.average-rounds": share})


@pytest.mark.parametrize(
    ("share", "rounds", "averaged"), [(0, 5, 0), (0.25, 12, 3), (0.1, 30, 3), (0.3, 10, 3), (0.01, 5, 1), (1, 4, 4)]
)
def test_the_last_share_of_the_rounds_counts(share, rounds, averaged):
    """Round r has arrays of r: the mean of a to b is (a + b) / 2."""
    run, checkpoint = config(share, rounds), Checkpoint(round=0, arrays={})
    for number in range(1, rounds + 1):
        checkpoint.round = number
        checkpoint.arrays = {"w": np.full(2, number, np.float32), "steps": np.array(number)}
        judged = judged_arrays(checkpoint, run)
        first = rounds - averaged + 1
        assert judged["w"].tolist() == [(first + number) / 2 if averaged and number >= first else number] * 2
        assert judged["w"].dtype == np.float32
        assert judged["steps"] == number
        if number < rounds:
            assert checkpoint.arrays["w"].tolist() == [number] * 2, "training goes on from its own arrays"
    assert same_arrays(checkpoint.arrays, judged)
    assert checkpoint.sums == {}


def test_a_run_ends_with_the_mean_of_its_last_rounds_and_trains_as_without():
    """The rounds before are those of shorter runs, whose settings differ in nothing that trains."""
    ends = [train_small(small_config(rounds=number, attention__every=0))[0].arrays for number in (2, 3, 4)]
    averaged, records = train_small(small_config(rounds=4, attention__every=0, strategy__average_rounds=0.75))
    plain = train_small(small_config(rounds=4, attention__every=0))[1]
    for name, array in averaged.arrays.items():
        np.testing.assert_allclose(array, np.mean([end[name] for end in ends], axis=0), rtol=1e-5, atol=1e-7)
    assert [record.train_loss for record in records] == [record.train_loss for record in plain]
    assert [a.evaluation == b.evaluation for a, b in zip(records, plain, strict=True)] == [True, True, False, False]


@pytest.mark.parametrize("name", ["fedavg", "fedadam"])
def test_a_run_that_was_stopped_among_them_ends_in_the_same_bits(name, tmp_path):
    changes = {"rounds": 4, "strategy__name": name, "strategy__average_rounds": 0.75}
    straight, records = train_small(small_config(**changes))
    stop = threading.Event()
    stop.set()
    out = small_config(**changes, out=str(tmp_path))
    for done in (1, 2, 3):
        with pytest.raises(Stopped):
            train_small(out, stop=stop)
        found = load_checkpoint(tmp_path)
        assert found.round == done
        assert bool(found.sums) == (done > 1)
    end, again = train_small(out)
    assert same_checkpoint(sorted_like(end, straight), straight)
    assert again == records


def test_sums_are_averaged_under_secure_aggregation_too():
    ends = [
        train_small(small_config(rounds=2, attention__every=0, secure_aggregation__enabled=enabled, **changes))[
            0
        ].arrays
        for enabled, changes in ((True, {"strategy__average_rounds": 1.0}), (False, {"strategy__average_rounds": 1.0}))
    ]
    for name, array in ends[0].items():
        np.testing.assert_allclose(array, ends[1][name], atol=2e-3)
    assert len(SITES) == 3
