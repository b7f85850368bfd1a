"""Would a site have raised the alarm? Its patients in windows, against a null that knows how source sites differ."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.seeds import derive, generator
from common.shift.monitors import EProcess, Ewma
from common.shift.nulls import thresholds, window_statistic
from common.shift.projected import Whitening, whitening

Row = dict[str, Any]
Cells = tuple[NDArray[np.float64], NDArray[np.int64]]
WINDOW = 6
"""Patients in a window, fewer where a site has not so many twice."""


def watch_sites(sites: Mapping[str, Cells], sources: tuple[str, ...], seed: int) -> list[Row]:
    """Judge every site as if it were new: a source site against the other sources, any other against all of them.

    Rows of a site: mean statistic of its windows, the two thresholds of the hierarchical null at that size of window,
    what they say of it, how high an EWMA came and what an e-process earned on its windows in the order of a lot. A site
    that has fewer than two source sites to be compared with has no null: its row says so.

    Args:
        sites: Rows [P, d], one per patient and class, and their classes [P].
        sources: Which of them trained.
        seed: Of windows and lots.
    """
    return [_watched(name, sites, [other for other in sources if other != name], seed) for name in sites]


def _watched(name: str, sites: Mapping[str, Cells], others: list[str], seed: int) -> Row:
    rows = sites[name][0]
    empty = dict.fromkeys(("statistic", "q_sample", "q_site", "ewma", "capital"), float("nan"))
    window = min(WINDOW, len(rows) // 2)
    if len(others) < 2 or window < 2:
        return {"site": name, "windows": 0, "window": window, **empty, "verdict": "no null"}
    known = {other: sites[other] for other in others}
    null = thresholds(known, whitening, window, derive(seed, "null", name))
    pool, labels = (np.concatenate(part) for part in zip(*known.values(), strict=True))
    found = window_statistics(rows, pool, whitening(pool, labels), window, derive(seed, "watch", name))
    usual = [value for other in others for value in _left_out(other, known, window, derive(seed, "watch", other))]
    ewma, bet = Ewma(null.site, value=float(np.mean(usual))), EProcess(list(usual), derive(seed, "ties", name))
    highest = 0.0
    for value in found:
        ewma.update(value)
        bet.update(value)
        highest = max(highest, ewma.value)
    mean = float(np.mean(found))
    return {
        "site": name,
        "windows": len(found),
        "window": window,
        "statistic": mean,
        "q_sample": null.sample,
        "q_site": null.site,
        "ewma": highest,
        "capital": bet.capital,
        "verdict": null.verdict(mean),
    }


def _left_out(name: str, sites: Mapping[str, Cells], window: int, seed: int) -> list[float]:
    """Give the windows of a source site against the other sources."""
    pool, labels = (np.concatenate(part) for part in zip(*(s for n, s in sites.items() if n != name), strict=True))
    return window_statistics(sites[name][0], pool, whitening(pool, labels), window, seed)


def window_statistics(
    rows: NDArray[np.float64], reference: NDArray[np.float64], whiten: Whitening, window: int, seed: int
) -> list[float]:
    """Cut a site's rows by lot into windows that share no row, and give the statistic of each."""
    order = generator(seed, "windows").permutation(len(rows))
    cuts = [order[start : start + window] for start in range(0, len(rows) - window + 1, window)]
    return [window_statistic(rows[cut], reference, whiten) for cut in cuts]
