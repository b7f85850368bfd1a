"""Does the atlas name what was done? Corrupted patients whom it was not learnt on, and clean windows left alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.seeds import generator
from common.shift.drift_atlas import Clean, DriftAtlas, learn_atlas
from common.shift.moments import Vectors, moments

Row = dict[str, Any]
NO_DRIFT, NONE = "no drift", "none of these"
OUTCOMES = (NO_DRIFT, NONE)
"""Answers besides the name of a corruption."""
ASKED = 100
"""Clean windows of each site that are asked."""


@dataclass(frozen=True, slots=True)
class Trials:
    """One row per site, corruption, severity, and whether the atlas knew the corruption (`known`) or had lost it."""

    rows: list[Row]

    def shares(self) -> Row:
        """Give how often the atlas was right; of named ones alone, the precision. NaN where there is nothing to count.

        `unknown_*` are of corruptions taken out of the atlas, one at a time: right is no name, or one of its family.
        """
        known, unknown = ([row for row in self.rows if row["known"] is which] for which in (True, False))
        named = [row for row in known if row["told"] not in OUTCOMES]
        right = [row for row in named if row["told"] == row["corruption"]]
        return {
            "trials": len(known),
            "drift_seen": _share(known, lambda row: row["told"] != NO_DRIFT),
            "right": _share(known, lambda row: row["told"] == row["corruption"]),
            "right_family": _share(known, lambda row: row["told_family"] == row["family"]),
            "precision": _share(named, lambda row: row["told"] == row["corruption"]),
            "precision_family": _share(named, lambda row: row["told_family"] == row["family"]),
            "severity_error": float(np.mean([abs(row["told_severity"] - row["severity"]) for row in right]))
            if right
            else float("nan"),
            "unknown_unnamed": _share(unknown, lambda row: row["told"] in OUTCOMES),
            "unknown_family": _share(unknown, lambda row: row["told_family"] == row["family"]),
            "unknown_wrong": _share(
                unknown, lambda row: row["told"] not in OUTCOMES and row["told_family"] != row["family"]
            ),
        }

    def confusion(self, names: tuple[str, ...], known: bool = True) -> Vectors:
        """Count answers: a row per corruption that was done, a column per name, then no drift and none of these."""
        columns = (*names, *OUTCOMES)
        found = np.zeros((len(names), len(columns)))
        for row in self.rows:
            if row["known"] is known:
                found[names.index(row["corruption"]), columns.index(row["told"])] += 1
        return found


def trials(atlas: DriftAtlas, rows: Vectors, others: Vectors, done: tuple[str, str, int]) -> list[Row]:
    """Ask once with the whole atlas and once without the corruption that was done.

    Args:
        atlas: Learnt on other patients.
        rows: Corrupted patients of one site [P, d].
        others: Clean patients of the other source sites, the reference of a site that would be new.
        done: Site, corruption and severity.
    """
    site, name, severity = done
    reference = moments(atlas.frame(others))
    placed = atlas.frame(rows) - reference.mean
    found = []
    for known in (True, False):
        answer = atlas.match_placed(placed, reference.bias, "" if known else name)
        told = answer.corruption if answer.kind == "resembles" else answer.kind
        family = atlas.family(answer.corruption) if answer.kind == "resembles" else ""
        found.append(
            {
                "site": site,
                "corruption": name,
                "family": atlas.family(name),
                "severity": severity,
                "known": known,
                "told": told,
                "told_family": family,
                "told_severity": answer.severity if family else 0,
                "cosine": answer.cosine,
                "support": answer.support,
                "along": answer.along,
                "threshold": answer.bounds.along,
            }
        )
    return found


def false_alarms(
    displaced: Mapping[str, Vectors], families: Sequence[str], clean: Mapping[str, Clean], about: Mapping[str, str]
) -> list[Row]:
    """Ask clean windows of each source site what they resemble, of an atlas that was learnt without the site.

    Windows of half the site's patients, drawn without replacement. NaN with two source sites: the other alone has no
    null.
    """
    found = []
    for name, one in clean.items():
        others = [other for key, other in clean.items() if key != name]
        size = max(2, len(one.rows) // 2)
        told = [math.nan, math.nan]
        if len(others) > 1 and len(one.rows) >= size:
            atlas = learn_atlas(displaced, families, others, about)
            rng = generator(0, "false alarms", name)
            kinds = [atlas.match(one.rows[rng.permutation(len(one.rows))[:size]]).kind for _ in range(ASKED)]
            told = [float(np.mean([kind != NO_DRIFT for kind in kinds])), kinds.count("resembles") / ASKED]
        found.append({"site": name, "patients": size, "told_drift": told[0], "named": told[1]})
    return found


def _share(rows: list[Row], right: Any) -> float:
    return float(np.mean([bool(right(row)) for row in rows])) if rows else float("nan")
