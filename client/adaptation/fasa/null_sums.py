"""The null between source sites as counts that add: each site's windows against itself and against the others."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from client.adaptation.fasa.gate import WINDOW, Null, Ruler
from common.errors import DataError
from common.seeds import generator
from common.shift.class_law import ClassLaw, class_sums
from common.shift.nulls import QUANTILE, WINDOWS, Thresholds

EDGES = np.logspace(-6, 8, 1401)
"""Upper ends of the bins of a statistic, 2.3 % apart."""
Counts = dict[str, NDArray[np.float64]]


def null_sums(
    rows: NDArray[np.float64], labels: NDArray[np.int64], patients: NDArray[np.str_], law: ClassLaw
) -> Counts:
    """Count the statistics of a site's windows: `sample` against the site itself, `site` against all others.

    A window is of whole patients, drawn with replacement, until it has 64 images: images of one patient resemble each
    other, and a stream may bring them together. Only counts leave the site. Where no other site is known, `site` is
    against the site itself.

    Args:
        rows: The site's signatures [N, d].
        labels: Their classes [N].
        patients: Whose they are [N].
        law: Of all sites together, this one included.
    """
    own = class_sums(rows, labels, len(law.counts))
    others = law.without(own) if law.counts.sum() > own["counts"].sum() else law
    uniform = np.full(len(law.counts), 1 / len(law.counts))
    apart = Ruler.of(others, _present(others, uniform))
    itself = Ruler(law.whitening(), rows.mean(0))
    found: dict[str, list[float]] = {"sample": [], "site": []}
    for window in _windows(patients):
        found["sample"].append(itself.distance(rows[window]))
        found["site"].append(apart.distance(rows[window]))
    return {name: _count(np.array(values)) for name, values in found.items()}


def null_of(counts: Mapping[str, NDArray[np.float64]]) -> Null:
    """Read added counts: the 99 % quantiles, as the upper end of their bin.

    Raises:
        DataError: There is no window.
    """
    if not all(value.sum() > 0 for value in counts.values()):
        raise DataError("the null has no window. Measure it on at least one source site with images.")
    ends = {name: float(_quantile(value)) for name, value in counts.items()}
    return Null(Thresholds(ends["sample"], max(ends["site"], ends["sample"])))


def _present(law: ClassLaw, mix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave classes without images out of a mix."""
    known = np.where(law.counts > 0, mix, 0)
    return np.asarray(known / known.sum())


def _windows(patients: NDArray[np.str_]) -> list[NDArray[np.int64]]:
    places = [np.flatnonzero(patients == name) for name in np.unique(patients)]
    random = generator(0, "adaptation", "null", len(patients))
    windows = []
    for _ in range(WINDOWS):
        drawn: list[int] = []
        while len(drawn) < WINDOW:
            drawn += places[random.integers(len(places))].tolist()
        windows.append(np.array(drawn[:WINDOW]))
    return windows


def _count(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.bincount(np.searchsorted(EDGES, values).clip(max=len(EDGES) - 1), minlength=len(EDGES)).astype(np.float64)


def _quantile(counts: NDArray[np.float64]) -> np.float64:
    return np.float64(EDGES[int((np.cumsum(counts) >= QUANTILE * counts.sum()).argmax())])
