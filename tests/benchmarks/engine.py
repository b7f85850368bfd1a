"""What an engine costs: the same training by a bare loop, by our engine and by Flower on Ray, side by side.

Variants run in turn, each in a fresh process, and ratios are taken within a repeat, so that a busy machine disturbs all
alike. Bars: rounds ≤ 1.15 × the loop's wall, start-up ≤ 3 s above the loop's, CPU ≤ 0.7 × Ray's.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import capture
import memory
import numpy as np
import workload
from machine import describe
from meter import measure

HERE = Path(__file__).parent
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
BARS = (
    ("rounds, wall against the loop", "in-process", "rounds_ratio", 1.15),
    ("start-up above the loop, s", "in-process", "start_above", 3.0),
    ("CPU against Ray", "in-process", "cpu_against_ray", 0.7),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One variant, once. Seconds; `rounds` is from the end of round 1 on; `start` is what round 1 ended later by."""

    variant: str
    wall: float
    start: float
    rounds: float
    cpu: float
    pss_mib: float
    processes: int
    last_loss: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for and print tables, or JSON."""
    given = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as folder:
        if given.memory:
            report = memory.run(Path(folder), given.workers)
        elif given.capture:
            report = capture.run(Path(folder), given.repeats)
        else:
            report = compare(Path(folder), given)
    report = {"machine": describe(), **report}
    print(json.dumps(report, indent=1) if given.json else "\n".join([report["machine"], *report["lines"]]))


def compare(folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """Run the variants in turn and put them side by side."""
    path = folder / "bench.npz"
    workload.write(path, workload.Size())
    variants = ["bare", "in-process", *(["ray"] if given.ray else [])]
    repeats: list[dict[str, Run]] = []
    difference = 0.0
    for number in range(given.repeats):
        runs = {}
        for variant in variants:
            runs[variant] = _run(variant, path, folder / f"{variant}-{number}", given)
            print(f"repeat {number + 1}: {variant} {runs[variant].wall:.1f} s", file=sys.stderr)
        repeats.append(runs)
        difference = max(difference, _apart(folder, number, variants))
    table = {variant: _summary(variant, repeats) for variant in variants}
    return {
        "sites": 6,
        "rounds": given.rounds,
        "workers": given.workers,
        "table": table,
        "largest_difference": difference,
        "runs": [{name: asdict(run) for name, run in runs.items()} for runs in repeats],
        "lines": _lines(table, difference, given),
    }


def _run(variant: str, path: Path, folder: Path, given: argparse.Namespace) -> Run:
    folder.mkdir()
    settings = workload.settings(path, given.rounds, out=str(folder / "run"))
    words = [json.dumps(settings), str(folder / "arrays.npz"), "--workers", str(given.workers)]
    script = [str(HERE / "bare.py"), str(path)] if variant == "bare" else [str(HERE / "ours.py")]
    engine = [] if variant == "bare" else ["--engine", variant]
    usage = measure([sys.executable, *script, *words, *engine], {**os.environ, **ENVIRONMENT})
    told = json.loads(usage.output.splitlines()[-1])
    ends = told["ends"]
    steady = (ends[-1] - ends[0]) / (len(ends) - 1)
    return Run(
        variant=variant,
        wall=usage.wall,
        start=ends[0] - usage.began - steady,
        rounds=ends[-1] - ends[0],
        cpu=usage.cpu,
        pss_mib=usage.pss_mib,
        processes=usage.processes,
        last_loss=told["losses"][-1],
    )


def _apart(folder: Path, number: int, variants: list[str]) -> float:
    """Give the largest difference of any final array to the bare loop's."""
    arrays = [np.load(folder / f"{variant}-{number}" / "arrays.npz", allow_pickle=False) for variant in variants]
    return max(float(np.abs(arrays[0][name] - one[name]).max()) for one in arrays[1:] for name in arrays[0].files)


def _summary(variant: str, repeats: list[dict[str, Run]]) -> dict[str, float]:
    """Medians over the repeats; ratios and differences first within each."""
    own = [runs[variant] for runs in repeats]
    loop = [runs["bare"] for runs in repeats]
    pairs = list(zip(own, loop, strict=True))
    medians = {
        name: statistics.median(getattr(run, name) for run in own)
        for name in ("wall", "start", "rounds", "cpu", "pss_mib", "processes", "last_loss")
    }
    medians["wall_ratio"] = statistics.median(run.wall / bare.wall for run, bare in pairs)
    medians["rounds_ratio"] = statistics.median(run.rounds / bare.rounds for run, bare in pairs)
    medians["cpu_ratio"] = statistics.median(run.cpu / bare.cpu for run, bare in pairs)
    medians["cpu_above"] = statistics.median(run.cpu - bare.cpu for run, bare in pairs)
    medians["start_above"] = statistics.median(run.start - bare.start for run, bare in pairs)
    if "ray" in repeats[0]:
        medians["cpu_against_ray"] = statistics.median(runs[variant].cpu / runs["ray"].cpu for runs in repeats)
    return medians


def _lines(table: dict[str, dict[str, float]], difference: float, given: argparse.Namespace) -> list[str]:
    lines = [
        f"6 sites x 600 images of 28 pixels, {given.rounds} rounds, vit-tiny, {given.workers} workers of one thread, "
        f"medians of {given.repeats}",
        "",
        "| variant | wall s | start s | rounds s | CPU s | PSS MiB | processes | rounds x | CPU x | CPU s more |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        lines.append(
            f"| {name} | {row['wall']:.1f} | {row['start']:.1f} | {row['rounds']:.1f} | {row['cpu']:.1f} "
            f"| {row['pss_mib']:.0f} | {row['processes']:.0f} | {row['rounds_ratio']:.3f} | {row['cpu_ratio']:.3f} "
            f"| {row['cpu_above']:+.1f} |"
        )
    lines += ["", f"Largest difference of a final weight to the bare loop's: {difference:.2g}"]
    for text, variant, figure, bar in BARS:
        if figure in table[variant]:
            value = table[variant][figure]
            lines.append(f"{text}: {value:.3f}, bar {bar}: {'met' if value <= bar else 'MISSED'}")
    if given.ray:
        lines.append(f"CPU of the loop itself against Ray: {table['bare']['cpu_against_ray']:.3f}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench engine", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--ray", action="store_true", help="also Flower on Ray")
    parser.add_argument("--memory", action="store_true", help="instead: memory over 100 rounds")
    parser.add_argument("--capture", action="store_true", help="instead: the share of a round spent on signatures")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    main()
