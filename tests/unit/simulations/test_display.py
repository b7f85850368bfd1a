"""The terminal: bars where somebody watches, plain lines where not, nothing on stdout; the final table."""

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from simulations.display import MOST_BARS, Display, Progress, clock_text, headline
from tests.made_results import empty_results, made_results

SITES = {"St. Anna": "source", "[bold]Riverside": "held-out"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain(width: int = 120) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def written(console: Console) -> str:
    return console.file.getvalue()


def test_without_a_terminal_there_is_one_line_per_milestone(capsys: pytest.CaptureFixture[str]):
    clock, console = Clock(), plain()
    with Display({"federated": 12, "pooled": 12}, SITES, console, clock) as display:
        for round_ in range(1, 13):
            clock.now += 2
            display.update(Progress("federated", round_, 12, {"auroc": 0.5 + 0.01 * round_}))
    lines = written(console).splitlines()
    assert lines[0] == "2 trainings, 24 rounds; sites: St. Anna · [bold]Riverside (held out)"
    assert [line.split(":")[1].split(",")[0] for line in lines[1:]] == [f" round {r} of 12" for r in (1, 3, 6, 9, 12)]
    assert lines[1].endswith("auroc 0.510; 0 of 2 trainings done, 0:02 so far, about 0:46 left")
    assert lines[-1].endswith("1 of 2 trainings done, 0:24 so far, about 0:24 left")
    assert capsys.readouterr().out == ""


def test_of_many_trainings_only_the_end_speaks():
    console = plain()
    with Display({f"local/{k}": 4 for k in range(10)}, {}, console, Clock()) as display:
        for round_ in range(1, 5):
            display.update(Progress("local/3", round_, 4))
    assert [line for line in written(console).splitlines() if line.startswith("local")] == [
        "local/3: round 4 of 4; 1 of 10 trainings done, 0:00 so far, about 0:00 left"
    ]


def test_on_a_terminal_bars_are_drawn_and_the_cursor_comes_back():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with Display({"federated": 4, "pooled": 4}, SITES, console, Clock()) as display:
        display.update(Progress("federated", 3, 4, {"auroc": 0.81}))
    text = written(console)
    assert "federated" in text
    assert "3/4" in text
    assert "auroc 0.810" in text
    assert text.rstrip().endswith("\x1b[?25h")


def test_an_error_while_live_leaves_the_terminal_usable():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with pytest.raises(KeyboardInterrupt), Display({"federated": 4}, {}, console, Clock()):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in written(console)


def test_of_many_trainings_only_those_at_work_have_bars():
    display = Display({f"training {k}": 4 for k in range(30)}, {}, plain(), Clock())
    for k in range(12):
        display.update(Progress(f"training {k}", 4 if k < 2 else 1, 4))
    console = plain()
    console.print(display.render())
    lines = written(console).splitlines()
    assert sum(line.startswith("training") for line in lines) == MOST_BARS
    assert "training 0" not in written(console)
    assert "2 of 30 trainings done" in lines[-1]
    assert "18/120" in written(console)


def test_time_left_follows_the_rounds_done():
    clock = Clock()
    display = Display({"a": 10, "b": 10}, {}, plain(), clock)
    assert display.seconds_left() is None
    clock.now = 5
    display.update(Progress("a", 5, 10))
    assert display.seconds_left() == pytest.approx(15)
    display.update(Progress("a", 10, 10))
    display.update(Progress("b", 10, 10))
    assert display.seconds_left() == 0


def test_updates_come_from_any_thread():
    display = Display({str(k): 50 for k in range(8)}, {}, plain(), Clock())

    def work(name: str) -> None:
        for round_ in range(1, 51):
            display.update(Progress(name, round_, 50))
            display.render()

    threads = [threading.Thread(target=work, args=(str(k),)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert display.seconds_left() == 0


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (6.6, "0:07"), (750, "12:30"), (3723, "1:02:03")])
def test_seconds_are_written_as_a_clock(seconds: float, text: str):
    assert clock_text(seconds) == text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_final_table_fits_the_terminal(width: int):
    console = plain(width)
    results = made_results()
    console.print(headline(results, Path("runs/x/report.html")))
    text = written(console)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "Privacy mechanism: none." in text
    assert "runs/x/report.html" in text
    assert "(held out)" in text
    ours = results.rows("headline", method="federated", site="Riverside", metric="auroc")[0]
    assert f"{ours['value']:.3f}" in text
    assert f"{ours['low']:.3f}–{ours['high']:.3f}" in text
    assert ("more column" in text) == (width < 200)


def test_a_run_without_a_headline_says_where_its_matrix_is() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(headline(empty_results(), Path("runs/x/report.html")))
    shown = console.export_text()
    assert "No method of this run has a place in the headline table" in shown
    assert "Privacy mechanism: none." in shown
    assert "runs/x/report.html" in shown
