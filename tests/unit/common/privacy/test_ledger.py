"""The ledger: refusal before work, record before reply, and every way in which a file can be wrong."""

import json
import math
import multiprocessing
import os
import signal

import pytest

from common.errors import BudgetExhaustedError, ConfigError, LedgerError, RunFolderError
from common.privacy import ledger as module
from common.privacy.accountant import cost
from common.privacy.budget import Budget
from common.privacy.events import Gaussian, PoissonSampled, Repeated
from common.privacy.ledger import HEAD, NAME, Ledger, Release, opened, price

BUDGET = Budget(3.0, 1e-5)
STEPS = Repeated(PoissonSampled(0.1, Gaussian(1.2)), 10)


def release(number=1, events=(STEPS,), purpose="training", cohort="split/train", run="r"):
    return Release(run=run, round=number, purpose=purpose, cohort=cohort, events=tuple(events))


def pay(folder, *releases, budget=BUDGET):
    for each in releases:
        with opened(folder, budget) as ledger:
            ledger.authorise([each])
            ledger.record(each, 100, "d" * 64)


def test_what_is_recorded_is_charged_and_survives(tmp_path):
    pay(tmp_path, release(1), release(2))
    with opened(tmp_path, BUDGET) as ledger:
        assert [entry.release for entry in ledger.entries()] == [release(1), release(2)]
        assert ledger.entries()[0].size == 100
        spend = ledger.spend()
    assert spend.epsilon == cost([STEPS, STEPS], 1e-5).epsilon
    assert (spend.releases, spend.accountant) == (2, "pld")


def test_an_empty_ledger_has_spent_nothing(tmp_path):
    with opened(tmp_path, BUDGET) as ledger:
        assert ledger.spend().epsilon == 0


def test_the_budget_is_met_exactly_and_not_exceeded(tmp_path):
    exact = Budget(cost([Repeated(Gaussian(3.0), 4)], 1e-5).epsilon, 1e-5)
    pay(tmp_path, *[release(number, [Gaussian(3.0)]) for number in range(1, 5)], budget=exact)
    with opened(tmp_path, exact) as ledger:
        before = (tmp_path / NAME).read_bytes()
        with pytest.raises(BudgetExhaustedError, match="Nothing was computed"):
            ledger.authorise([release(5, [Gaussian(3.0)])])
        assert (tmp_path / NAME).read_bytes() == before
        assert ledger.spend().epsilon <= exact.epsilon


def test_a_release_ahead_that_does_not_fit_does_not_stop_a_round_that_does(tmp_path):
    with opened(tmp_path, BUDGET) as ledger:
        with pytest.raises(BudgetExhaustedError):
            ledger.authorise([release(1), release(2, [Gaussian(0.1)])])
        ledger.authorise([release(1)], ahead=[release(2, [Gaussian(0.1)])])
        ledger.record(release(1), 1, "")
        assert [entry.release for entry in ledger.entries()] == [release(1)]


def test_a_whole_plan_is_priced_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "cost", lambda events, delta: asked.append(len(events)) or cost(events, delta))
    plan = [release(number) for number in range(1, 6)]
    for number, each in enumerate(plan):
        with opened(tmp_path, Budget(9.0, 1e-5)) as ledger:
            ledger.authorise([each], ahead=plan[number + 1 :])
            ledger.record(each, 1, "")
    assert asked == [5] * 5  # the same five events every time, which the accountant remembers


def test_authorised_and_never_recorded_is_not_charged(tmp_path):
    with opened(tmp_path, BUDGET) as ledger:
        ledger.authorise([release(1)])
    with opened(tmp_path, BUDGET) as ledger:
        assert ledger.spend().epsilon == 0
        with pytest.raises(LedgerError, match="not authorised"):
            ledger.record(release(1), 1, "")


def test_recorded_twice_is_refused(tmp_path):
    with opened(tmp_path, BUDGET) as ledger:
        ledger.authorise([release(1)])
        ledger.record(release(1), 1, "")
        with pytest.raises(LedgerError, match="not authorised"):
            ledger.record(release(1), 1, "")


def test_a_repeated_round_is_charged_again(tmp_path):
    pay(tmp_path, release(1), release(1))
    with opened(tmp_path, BUDGET) as ledger:
        assert ledger.spend().epsilon == cost([STEPS, STEPS], 1e-5).epsilon


def _spend_and_die(folder, record):
    with opened(folder, BUDGET) as ledger:
        ledger.authorise([release(1)])
        if record:
            ledger.record(release(1), 1, "")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_killed_process_leaves_what_it_recorded_and_frees_the_lock(tmp_path, recorded):
    child = multiprocessing.get_context("fork").Process(target=_spend_and_die, args=(tmp_path, recorded))
    child.start()
    child.join()
    with opened(tmp_path, BUDGET) as ledger:
        assert len(ledger.entries()) == recorded


def test_a_crash_between_journal_and_head_is_no_damage(tmp_path):
    pay(tmp_path, release(1))
    head = (tmp_path / HEAD).read_bytes()
    with opened(tmp_path, BUDGET) as ledger:
        ledger.authorise([release(2)])
    (tmp_path / HEAD).write_bytes(head)
    with opened(tmp_path, BUDGET) as ledger:
        assert len(ledger.entries()) == 1


@pytest.mark.parametrize("line", [0, 1, 3])
def test_a_changed_line_is_named(tmp_path, line):
    pay(tmp_path, release(1), release(2))
    lines = (tmp_path / NAME).read_text().splitlines()
    lines[line] = lines[line].replace('"count": 10', '"count": 1')
    (tmp_path / NAME).write_text("\n".join(lines) + "\n")
    with pytest.raises(LedgerError, match=f"line {line + 1} does not continue the chain"), opened(tmp_path, BUDGET):
        pass


def test_a_cut_ledger_is_found(tmp_path):
    pay(tmp_path, release(1), release(2))
    lines = (tmp_path / NAME).read_text().splitlines(keepends=True)
    (tmp_path / NAME).write_text("".join(lines[:-2]))
    with pytest.raises(LedgerError, match="it was cut"), opened(tmp_path, BUDGET):
        pass


@pytest.mark.parametrize(("name", "said"), [(NAME, "has 0 lines and its head knows 2"), (HEAD, "its head knows 0")])
def test_a_removed_file_is_found(tmp_path, name, said):
    pay(tmp_path, release(1))
    (tmp_path / name).unlink()
    with pytest.raises(LedgerError, match=said), opened(tmp_path, BUDGET):
        pass


def test_an_older_copy_is_found(tmp_path):
    pay(tmp_path, release(1))
    older = (tmp_path / NAME).read_bytes()
    pay(tmp_path, release(2))
    (tmp_path / NAME).write_bytes(older)
    with pytest.raises(LedgerError, match="older copy"), opened(tmp_path, BUDGET):
        pass


def test_another_ledger_of_equal_length_is_found(tmp_path):
    pay(tmp_path / "a", release(1))
    pay(tmp_path / "b", release(1, [Gaussian(50.0)]))
    (tmp_path / "a" / NAME).write_bytes((tmp_path / "b" / NAME).read_bytes())
    with pytest.raises(LedgerError), opened(tmp_path / "a", BUDGET):
        pass


def test_a_head_that_could_not_be_written_twice_is_no_damage(tmp_path, monkeypatch):
    """A nearly full disk takes a short line and no new file: nothing left the site, and nothing was lost."""
    pay(tmp_path, release(1))

    def full(*_):
        raise RunFolderError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", full)
        for _ in range(2):
            with pytest.raises(LedgerError, match="cannot be charged is not made"):
                pay(tmp_path, release(2))
    pay(tmp_path, release(3))
    with opened(tmp_path, BUDGET) as ledger:
        assert [entry.release.round for entry in ledger.entries()] == [1, 3]


def test_a_longer_ledger_that_does_not_continue_its_head_is_found(tmp_path):
    pay(tmp_path / "a", release(1))
    pay(tmp_path / "b", release(1, [Gaussian(50.0)]))
    with opened(tmp_path / "b", BUDGET) as ledger:
        ledger.authorise([release(2)])
    (tmp_path / "a" / NAME).write_bytes((tmp_path / "b" / NAME).read_bytes())
    with pytest.raises(LedgerError, match="its head knows 2"), opened(tmp_path / "a", BUDGET):
        pass


@pytest.mark.parametrize("lines", [-1, 5])
def test_a_head_that_knows_no_line_is_refused(tmp_path, lines):
    pay(tmp_path, release(1))
    (tmp_path / HEAD).write_text(json.dumps({"lines": lines, "hash": ""}))
    with pytest.raises(LedgerError, match=f"its head knows {lines}"), opened(tmp_path, BUDGET):
        pass


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"lines": "x", "hash": ""}'])
def test_a_damaged_head_is_refused(tmp_path, text):
    pay(tmp_path, release(1))
    (tmp_path / HEAD).write_text(text)
    with pytest.raises(LedgerError, match="cannot be read"), opened(tmp_path, BUDGET):
        pass


def test_two_processes_cannot_hold_one_ledger(tmp_path):
    with (
        opened(tmp_path, BUDGET),
        pytest.raises(LedgerError, match="in use by another process"),
        opened(tmp_path, BUDGET),
    ):
        pass
    with opened(tmp_path, BUDGET):  # and the lock is free again
        pass


def test_a_clock_that_goes_backwards_loses_nothing(tmp_path, monkeypatch, caplog):
    pay(tmp_path, release(1))
    monkeypatch.setattr(module, "_now", lambda: "2001-01-01T00:00:00.000+00:00")
    pay(tmp_path, release(2))
    with opened(tmp_path, BUDGET) as ledger:
        assert [entry.clock for entry in ledger.entries()] == ["forward", "set back"]
        assert ledger.spend().releases == 2
    assert "clock was set back" in caplog.text


def test_a_full_disk_stops_the_release(tmp_path, monkeypatch):
    with opened(tmp_path, BUDGET) as ledger:
        ledger.authorise([release(1)])

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(LedgerError, match="cannot be charged is not made"):
            ledger.record(release(1), 1, "")
        assert ledger.entries() == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="`state` folder"), opened(tmp_path / "file" / "ledger", BUDGET):
        pass


def test_lines_of_another_version_are_refused(tmp_path):
    pay(tmp_path, release(1))
    ledger = Ledger(tmp_path, BUDGET)
    ledger._write({"what": "released", "epsilon": 1.0})
    with pytest.raises(LedgerError, match="version that wrote it"):
        ledger.entries()


def test_parts_of_one_split_do_not_add_and_splits_do():
    train, val = release(cohort="s/train"), release(cohort="s/val", events=[Gaussian(2.0)])
    other = release(cohort="t/train", events=[Gaussian(2.5)])
    single = {each.cohort: cost(each.events, 1e-5).epsilon for each in (train, val)}
    assert price([train, val], 1e-5).epsilon == max(single.values())
    assert price([train, val, other], 1e-5).epsilon == max(
        cost([*each.events, *other.events], 1e-5).epsilon for each in (train, val)
    )


def test_many_splits_are_simply_added():
    many = [release(cohort=f"{n}/{part}", events=[Gaussian(9.0)]) for n in range(6) for part in ("train", "val")]
    assert price(many, 1e-5).epsilon == cost([Gaussian(9.0)] * 12, 1e-5).epsilon


def test_no_release_is_priced_at_nothing():
    assert price([], 1e-5).epsilon == 0


def test_lines_hold_no_more_than_they_should(tmp_path):
    pay(tmp_path, release(1))
    body = json.loads((tmp_path / NAME).read_text().splitlines()[-1])["body"]
    named = ["at", "clock", "cohort", "digest", "events", "placement", "purpose", "round", "run", "size", "what"]
    assert sorted(body) == named


def test_lines_that_do_not_say_who_adds_the_noise_are_read(tmp_path):
    pay(tmp_path, release(1))
    with opened(tmp_path, BUDGET) as ledger:
        body = {name: value for name, value in ledger._bodies[-1].items() if name != "placement"}
        ledger._write(body)
        assert [entry.release for entry in ledger.entries()] == [release(1)] * 2


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-5), (101, 1e-5), (math.nan, 1e-5), (1, 0), (1, 0.01)])
def test_a_budget_out_of_range_is_refused(epsilon, delta):
    with pytest.raises(ConfigError, match="Allowed are"):
        Budget(epsilon, delta)


def test_a_delta_that_lets_a_whole_patient_through_is_refused():
    Budget(1.0, 1e-4).check_patients(9_999)
    with pytest.raises(ConfigError, match="less than 1 / patients"):
        Budget(1.0, 1e-4).check_patients(10_000)
