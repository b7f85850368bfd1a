"""Shift of attention between the sites of a finished run: how far apart, whether by chance, and what moved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from common.attention.distance import block_values, w_blocks
from common.attention.schema import Schema
from common.errors import DataError
from common.seeds import derive
from common.shift.nulls import permutation_test
from simulations.experiment import Experiment
from simulations.finished import Step
from simulations.judging import Case, Court, open_court
from simulations.results import FEDERATED, Results
from simulations.shift_rows import SiteRows, detailed_schema, ruler_of, schema_for, site_rows
from simulations.shift_watch import watch_sites

Row = dict[str, Any]
HEADED = ("head_ent", "head_dist")
"""Blocks with an entry for every head."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Averages over seeds: `pairs` has a row per pair of sites, `blocks` one per pair and block, `watch` one per site.

    `watch` says of each site, by most seeds, whether its windows lie beyond what patients and what source sites vary.
    """

    run: Path
    privacy: str
    seeds: tuple[int, ...]
    sites: tuple[str, ...]
    pairs: list[Row]
    blocks: list[Row]
    watch: list[Row]


def study_shift(run: Path, step: Step = lambda text: None) -> Shift:
    """Measure every pair of sites with the run's federated models, on the patients of their test splits.

    Raises:
        RunFolderError: The run is not finished, is a mixture of two, or its data are others now.
        AttentionError: Its model names no attention site.
    """
    results, experiment, court = open_run(run)
    pairs: list[list[Row]] = []
    blocks: list[list[Row]] = []
    watch: list[list[Row]] = []
    for seed in experiment.study.seeds:
        step(f"seed {seed}: distances between sites")
        found, moved, watched = _measure(court, seed)
        pairs.append(found)
        blocks.append(moved)
        watch.append(watched)
    table = [average(rows) for rows in zip(*pairs, strict=True)]
    for row, q in zip(table, false_discovery_control([row["p"] for row in table]), strict=True):
        row["q"] = float(q)
    return Shift(
        run,
        str(results.record["privacy"]),
        tuple(experiment.study.seeds),
        tuple(site.name for site in court.federation.sites),
        table,
        [average(rows) for rows in zip(*blocks, strict=True)],
        [{**average(rows), "verdict": usual([row["verdict"] for row in rows])} for rows in zip(*watch, strict=True)],
    )


def open_run(run: Path) -> tuple[Results, Experiment, Court]:
    """Open a finished run of several sites and the data that it was trained on.

    Raises:
        RunFolderError: The run is not finished, is a mixture of two, or its data are others now.
        DataError: It has one site.
    """
    results, experiment, court = open_court(run)
    if len(court.federation.sites) < 2:
        raise DataError(f"{run} has one site. A shift is between two; give a run of several sites.")
    return results, experiment, court


def _measure(court: Court, seed: int) -> tuple[list[Row], list[Row], list[Row]]:
    sites = court.federation.sites
    rows: dict[str, SiteRows] = {}
    means: dict[str, NDArray[np.float64]] = {}
    for site in sites:
        (model,) = court.models(Case(seed, (FEDERATED,), site.name))
        schema, detail = schema_for(model), detailed_schema(model)
        data, draw = court.data(site.name, "test"), derive(seed, "shift", site.name)
        rows[site.name] = site_rows(model, schema, data, draw)
        means[site.name] = site_rows(model, detail, data, draw).signatures.mean(0)
    ruler = ruler_of(model, schema, court.federation, [rows[site.name] for site in sites if site.role == "source"])
    pairs: list[Row] = []
    blocks: list[Row] = []
    for first, second in combinations(rows, 2):
        left, right = rows[first], rows[second]
        head = {"first": first, "second": second}
        whitened = [ruler.projected(side.signatures) for side in (left, right)]
        test = permutation_test(whitened[0], whitened[1], derive(seed, first, second))
        few = min(len(left.signatures), len(right.signatures))
        pairs.append({**head, **ruler.distances(left, right), "p": test.p, "patients": few})
        blocks += [{**head, **row} for row in _moved(detail, means[first], means[second])]
    sources = tuple(site.name for site in sites if site.role == "source")
    watched = watch_sites({name: (one.cells, one.labels) for name, one in rows.items()}, sources, seed)
    return pairs, blocks, watched


def usual(verdicts: Sequence[str]) -> str:
    """Give what most seeds say; of those that are as many, the more alarming."""
    order = ("alarm", "heterogeneous", "normal", "no null")
    return max(order, key=lambda verdict: (verdicts.count(verdict), -order.index(verdict)))


def _moved(schema: Schema, left: NDArray[np.float64], right: NDArray[np.float64]) -> Iterator[Row]:
    """Give the distance of every block, and of single heads (counted from 1) where a block has one entry for each."""
    distances = w_blocks(schema, left, right)
    one, other = block_values(schema, left), block_values(schema, right)
    for block in schema.blocks:
        yield {"block": block.label, "head": "", "w": distances[block.label]}
        if block.name in HEADED:
            for head, gap in enumerate(np.abs(one[block.label] - other[block.label]), 1):
                yield {"block": block.label, "head": str(head), "w": float(gap)}


def average(rows: Sequence[Row]) -> Row:
    """Average over seeds; p is twice the median, which is valid however the seeds depend (Rüger 1978)."""
    found: Row = {}
    for key, value in rows[0].items():
        column = [row[key] for row in rows]
        if key == "p":
            found[key] = min(1.0, (2 if len(rows) > 1 else 1) * float(np.median(column)))
        else:
            found[key] = value if isinstance(value, str | int) else float(np.mean(column))
    return found
