"""From trainings to tables: learning curves, health of the attention, and how far the sites' attention lies apart."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.attention.distance import add_matrix, js_blocks, w_blocks
from common.attention.schema import Schema
from server.history import POOLED, RoundRecord

Row = dict[str, Any]
TOLD = ("distance", "noise", "floor")


def history_rows(method: str, seed: int, records: list[RoundRecord]) -> Iterator[Row]:
    """Training loss and validation metrics after every round, per site and pooled."""
    for record in records:
        row = {"method": method, "seed": seed, "round": record.round}
        for site, loss in record.train_loss.items():
            yield {**row, "site": site, "split": "train", "metric": "loss", "value": loss}
        for site, metrics in record.evaluation.items():
            name = "all sources (pooled)" if site == POOLED else site
            for metric, value in metrics.items():
                yield {**row, "site": name, "split": "val", "metric": metric, "value": value}


def health_rows(method: str, seed: int, records: list[RoundRecord]) -> Iterator[Row]:
    """What each measuring round says of the attention's health, per site and family."""
    for record in records:
        for site, values in record.health.items():
            for family, value in values.items():
                yield {
                    "method": method,
                    "seed": seed,
                    "round": record.round,
                    "site": site,
                    "family": family,
                    "value": value,
                    "alarm": record.alarms.get(site, {}).get(family, ""),
                }


def told_rows(method: str, seed: int, records: list[RoundRecord]) -> Iterator[Row]:
    """Under privacy, how far every site said that it lies from the others."""
    for record in records:
        for site, told in record.distances.items():
            yield {"method": method, "seed": seed, "site": site, **dict(zip(TOLD, told, strict=True))}


def distance_rows(schema: Schema, means: dict[str, NDArray[np.float64]]) -> tuple[list[Row], list[Row]]:
    """ADD-W of every ordered pair of sites, and what each block adds for every unordered pair.

    Both are empty where the signature is projected, for then it has no blocks.
    """
    if schema.projected:
        return [], []
    names, matrix = add_matrix(schema, means)
    pairs = [
        {"site_a": first, "site_b": second, "add_w": float(matrix[row, column])}
        for row, first in enumerate(names)
        for column, second in enumerate(names)
    ]
    kinds = {block.label: block.kind for block in schema.blocks}
    blocks = []
    for row, first in enumerate(names):
        for second in names[row + 1 :]:
            js, w = (blocks_of(schema, means[first], means[second]) for blocks_of in (js_blocks, w_blocks))
            blocks += [
                {
                    "site_a": first,
                    "site_b": second,
                    "block": label,
                    "kind": kinds[label],
                    "js": js.get(label, np.nan),
                    "w": w[label],
                }
                for label in kinds
            ]
    return pairs, blocks
