"""The terminal while a run trains: live bars, or plain lines where nobody watches. All on stderr; stdout stays free."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from simulations.report.words import shorten

if TYPE_CHECKING:
    from simulations.results import Results

MOST_BARS = 8
"""Trainings with a bar of their own; those that wait or are done are counted below."""

FEW = 6
"""So many trainings speak at every quarter in plain lines; more of them speak at their end only."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One training has finished a round. `metrics` are shown in their order, the first one at least."""

    training: str
    round: int
    rounds: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Training:
    round: int
    rounds: int
    metrics: Mapping[str, float]
    touched: float

    @property
    def done(self) -> bool:
        return self.round >= self.rounds


class Display:
    """Progress of several trainings: bars, sites, time left, the last metric. Use it as a context manager.

    Args:
        total_rounds: Training to its rounds, in the order to show.
        sites: Site to its role (source, held-out), shown in one row.
        console: Where to write; stderr unless given. If it is no terminal, one plain line per milestone.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        total_rounds: Mapping[str, int],
        sites: Mapping[str, str] | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainings = {name: _Training(0, rounds, {}, -math.inf) for name, rounds in total_rounds.items()}
        self._sites = dict(sites or {})
        self._console = console or Console(stderr=True)
        self._clock, self._start = clock, clock()
        self._lock = threading.RLock()
        self._live: Live | None = None

    def __enter__(self) -> "Display":
        self._start = self._clock()
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self.render, refresh_per_second=4)
            self._live.start()
        else:
            self._say(f"{len(self._trainings)} trainings, {self._rounds()[1]} rounds; sites: {self._site_names()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, progress: Progress) -> None:
        """Take note of a finished round; from any thread."""
        with self._lock:
            known = progress.training in self._trainings
            before = self._trainings[progress.training].round if known else 0
            metrics = progress.metrics or (self._trainings[progress.training].metrics if known else {})
            self._trainings[progress.training] = _Training(progress.round, progress.rounds, metrics, self._clock())
            if self._live is None and self._milestone(before, progress):
                self._say(self._line(progress))

    def seconds_left(self) -> float | None:
        """Estimate the seconds left from the rounds done so far; None before the first round is done."""
        done, total = self._rounds()
        elapsed = self._clock() - self._start
        return None if done == 0 else elapsed * (total - done) / done

    def render(self) -> RenderableType:
        """Draw the present state."""
        with self._lock:
            bars = Table.grid(padding=(0, 1))
            bars.add_column(no_wrap=True, overflow="ellipsis", max_width=30)
            bars.add_column(width=20)
            bars.add_column(justify="right", no_wrap=True, min_width=7)
            bars.add_column(no_wrap=True, overflow="ellipsis")
            for name, training in self._shown():
                bar = ProgressBar(total=training.rounds, completed=training.round, width=20)
                bars.add_row(name, bar, f"{training.round}/{training.rounds}", _metrics(training.metrics))
            done, total = self._rounds()
            whole = ProgressBar(total=total, completed=done, width=20)
            bars.add_row(Text("all rounds", style="bold"), whole, f"{done}/{total}")
            finished = sum(training.done for training in self._trainings.values())
            line = Text(f"{finished} of {len(self._trainings)} trainings done · {self._time()}", style="dim")
            sites = Text(f"Sites: {self._site_names()}", style="dim", no_wrap=True, overflow="ellipsis")
            return Group(sites, bars, line) if self._sites else Group(bars, line)

    def _shown(self) -> list[tuple[str, _Training]]:
        """Few trainings all show; of many, those at work now, the last touched first to stay."""
        if len(self._trainings) <= MOST_BARS:
            return list(self._trainings.items())
        busy = [(name, one) for name, one in self._trainings.items() if not one.done and one.round > 0]
        keep = sorted(busy, key=lambda item: -item[1].touched)[:MOST_BARS]
        return [item for item in busy if item in keep]

    def _rounds(self) -> tuple[int, int]:
        trainings = self._trainings.values()
        return sum(one.round for one in trainings), sum(one.rounds for one in trainings)

    def _time(self) -> str:
        left = self.seconds_left()
        elapsed = clock_text(self._clock() - self._start)
        return f"{elapsed} so far" if left is None else f"{elapsed} so far, about {clock_text(left)} left"

    def _site_names(self) -> str:
        names = [
            f"{shorten(name, 22)}{' (held out)' if role == 'held-out' else ''}" for name, role in self._sites.items()
        ]
        return " · ".join(names) or "not named"

    def _milestone(self, before: int, progress: Progress) -> bool:
        if progress.round >= progress.rounds:
            return before < progress.rounds
        quarters = (4 * before // progress.rounds, 4 * progress.round // progress.rounds)
        return len(self._trainings) <= FEW and (progress.round == 1 or quarters[0] < quarters[1])

    def _line(self, progress: Progress) -> str:
        metrics = _metrics(progress.metrics)
        done = sum(training.done for training in self._trainings.values())
        return (
            f"{progress.training}: round {progress.round} of {progress.rounds}{', ' + metrics if metrics else ''}; "
            f"{done} of {len(self._trainings)} trainings done, {self._time()}"
        )

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _metrics(metrics: Mapping[str, float], most: int = 2) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in list(metrics.items())[:most])


def clock_text(seconds: float) -> str:
    """Write seconds as 0:07, 12:30 or 1:02:03."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(frozen=True, slots=True)
class Headline:
    """The final table: a row per method, a column per site as far as the terminal is wide; held-out sites first."""

    results: "Results"
    report: Path | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table for this width, the privacy line, and where the report is."""
        from simulations.report import words
        from simulations.report.headline import places
        from simulations.report.sections import privacy_text

        results = self.results
        order = places(results)
        fitting = max(1, (options.max_width - 21) // 14)
        if order:
            yield _headline_table(results, order[:fitting])
        else:
            yield Text("No method of this run has a place in the headline table; its matrix stands in the report.")
        if len(order) > fitting:
            yield Text(f"{words.count(len(order) - fitting, 'more column')} in the report.", style="dim")
        yield Text(privacy_text(results.record["privacy"]), style="bold")
        if self.report is not None:
            yield Text(f"Report: {self.report}", overflow="fold")


def headline(results: "Results", report: Path | None = None) -> RenderableType:
    """Give the final table of a run, to print on a rich console."""
    return Headline(results, report)


def _headline_table(results: "Results", order: list[str]) -> Table:
    from simulations.report import words
    from simulations.report.headline import best_value

    metric = results.primary
    rows = results.rows("headline", metric=metric)
    title = f"{words.direction(metric)}, 95 % interval below; * best of its column"
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    table.add_column("method", no_wrap=True)
    for place in order:
        name = words.shorten(place, 24)
        marked = place in results.sites("held-out")
        table.add_column(Text(f"{name}\n(held out)" if marked else name), vertical="bottom", width=12)
    for method in [name for name in results.methods if any(row["method"] == name for row in rows)]:
        cells = []
        for place in order:
            there = [row for row in rows if row["site"] == place]
            mine = next((row for row in there if row["method"] == method), None)
            cells.append(_cell(mine, best_value(there, metric), words.digits(metric)))
        table.add_row(Text(method, style="bold" if method == "federated" else ""), *cells)
    return table


def _cell(row: "dict[str, object] | None", best: float, decimals: int) -> Text:
    from simulations.report import words

    if row is None:
        return Text("does not\napply", style="dim")
    value, low, high = (words.number(float(str(row[key])), decimals) for key in ("value", "low", "high"))
    text = Text(f"{value}*" if row["value"] == best else value, style="bold" if row["value"] == best else "")
    return text.append(f"\n{low}–{high}" if words.DASH not in (low, high) else "\nno interval", style="dim not bold")
