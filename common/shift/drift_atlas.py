"""The drift atlas: which way each corruption moves the signature, so that a new site's drift can be named.

Holds no image and nothing of a single patient: means over patients, one whitening matrix and a few quantiles.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.arrays import all_finite, read_arrays, write_arrays
from common.errors import DataError, RunFolderError
from common.seeds import generator
from common.shift.frame import Frame, frame_of
from common.shift.moments import Vectors, check_rows, moments
from common.shift.resemblance import Bounds, Resemblance, likeness, reaches, resemble

SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
LEVEL, WINDOWS = 0.05, 400
"""Share of clean windows that may be told a drift, and how many of each site and size say how far they get."""
UNLIKE, BETWEEN = 0.75, (0.5, 0.95)
"""Quantile of the best cosines with another family that the least cosine is, and the range that it is kept in."""
FORMAT = "1"


@dataclass(frozen=True, slots=True, eq=False)
class Clean:
    """Clean patients of one source site: one row per patient, and one per patient and class with its label.

    Shapes: rows [P, d], cells [Q, d], labels [Q], Q ≥ P.
    """

    rows: Vectors
    cells: Vectors
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DriftAtlas:
    """Displacements of corruptions in severities 1 to S, and how far clean patients get.

    Shapes: entries [K, S, d] and reference [d] in the frame; thresholds [2, len(SIZES)].

    Args:
        names: K corruptions.
        families: Of each.
        entries: Mean displacement by each corruption in each severity.
        frame: Whitening within sites and classes.
        reference: Mean of the clean patients of all source sites.
        reference_bias: What sampling adds to the squared length of that mean.
        thresholds: Of `along` and of the whole length, for windows of SIZES patients.
        least_cosine: Below it nothing is named.
        about: Text that travels along, such as the schema and the model that it was learnt with.
    """

    names: tuple[str, ...]
    families: tuple[str, ...]
    entries: Vectors
    frame: Frame
    reference: Vectors
    reference_bias: float
    thresholds: Vectors
    least_cosine: float
    about: Mapping[str, str]

    def bounds(self, patients: int) -> Bounds:
        """Give what a displacement of so many patients must pass."""
        along, length = (_threshold_for(patients, line) for line in self.thresholds)
        return Bounds(along, length, self.least_cosine)

    def match(self, rows: Vectors, without: str = "") -> Resemblance:
        """Say what a site's patients resemble. Shapes: rows [P, d], signatures as measured.

        Args:
            rows: One signature per patient.
            without: A corruption to take out of the atlas, as if it were unknown.

        Raises:
            DataError: Fewer than two patients, or those of another model.
        """
        placed = self.frame(check_rows(rows))
        return self.match_placed(placed - self.reference, self.reference_bias, without)

    def match_placed(self, rows: Vectors, reference_bias: float, without: str = "") -> Resemblance:
        """As `match`, for rows in the frame from which some reference's mean was taken."""
        kept = [place for place, name in enumerate(self.names) if name != without]
        bias = (moments(rows).bias if len(rows) > 1 else 0.0) + reference_bias
        return resemble(rows, bias, [self.names[place] for place in kept], self.entries[kept], self.bounds(len(rows)))

    def family(self, name: str) -> str:
        """Give the family of a corruption of the atlas."""
        return self.families[self.names.index(name)]


def _threshold_for(patients: int, thresholds: Vectors) -> float:
    """Give the threshold for so many patients from those of SIZES: between them by 1/√n, beyond them the nearest."""
    return float(np.interp(-1 / np.sqrt(max(patients, 1)), -1 / np.sqrt(np.array(SIZES, np.float64)), thresholds))


def learn_atlas(
    displaced: Mapping[str, Vectors], families: Sequence[str], clean: Sequence[Clean], about: Mapping[str, str]
) -> DriftAtlas:
    """Put an atlas together.

    The thresholds are 95 % quantiles over windows of a source site against the others, of the site that gets farthest:
    real hospitals differ, and a drift must go farther than that. The least cosine is the 75 % quantile, over
    corruptions, of the best cosine with a corruption of another family, kept between 0.5 and 0.95.

    Args:
        displaced: Corruption to its mean displacements [S, d] of the signature, not yet in the frame.
        families: Of each, in that order.
        clean: Clean patients of two source sites or more, best such as the model has not trained on.
        about: Text that travels along.

    Raises:
        DataError: Fewer than two source sites, or patients that no frame can be learnt on.
    """
    if len(clean) < 2:
        raise DataError(
            f"{len(clean)} source site gives no null: how far clean hospitals lie apart is learnt from at least 2. "
            f"Train with more sites."
        )
    raw = np.stack(list(displaced.values()))
    frame = _frame(clean)
    entries = frame(raw)
    placed = [frame(check_rows(one.rows)) for one in clean]
    pooled = moments(np.concatenate(placed))
    return DriftAtlas(
        tuple(displaced),
        tuple(families),
        entries,
        frame,
        pooled.mean,
        pooled.bias,
        _thresholds(placed, entries),
        _least_cosine(likeness(entries), families),
        dict(about),
    )


def _frame(clean: Sequence[Clean]) -> Frame:
    sites = np.concatenate([np.full(len(one.cells), place) for place, one in enumerate(clean)])
    return frame_of(np.concatenate([one.cells for one in clean]), np.concatenate([one.labels for one in clean]), sites)


def _thresholds(placed: Sequence[Vectors], entries: Vectors) -> Vectors:
    """Give how far clean windows get along a corruption, and in all, in one of twenty. [2, len(SIZES)].

    The quantile is that of the site that gets farthest from the others, all in one frame: a frame learnt without the
    site would be a stranger's, but with two source sites it would rest on one of them and scatter more than it tells.
    """
    found = []
    for place, rows in enumerate(placed):
        others = np.concatenate([other for number, other in enumerate(placed) if number != place])
        rng = generator(0, "drift atlas", place)
        found.append([_reached(rows, others, entries, size, rng) for size in SIZES])
    return np.asarray(np.array(found).max(axis=0).T)


def _reached(rows: Vectors, others: Vectors, entries: Vectors, size: int, rng: np.random.Generator) -> Vectors:
    """Give the quantile over windows, along and in all [2]; both sides are drawn with replacement."""
    away = _drawn_means(rows, size, rng) - _drawn_means(others, len(others), rng)
    far = np.stack([reaches(away, entries), np.linalg.norm(away, axis=1)])
    return np.asarray(np.quantile(far, 1 - LEVEL, axis=1))


def _drawn_means(rows: Vectors, size: int, rng: np.random.Generator) -> Vectors:
    return np.asarray(rows[rng.integers(len(rows), size=(WINDOWS, size))].mean(1))


def _least_cosine(alike: Vectors, families: Sequence[str]) -> float:
    groups = np.array(families)
    best = [alike[place, groups != family].max() for place, family in enumerate(families) if (groups != family).any()]
    return float(np.clip(np.quantile(best, UNLIKE), *BETWEEN)) if best else BETWEEN[0]


def save_atlas(atlas: DriftAtlas, path: Path) -> None:
    """Write one safetensors file, single precision; whole or not at all.

    Raises:
        RunFolderError: It cannot be written.
    """
    single = {
        "entries": atlas.entries,
        "frame": atlas.frame.matrix,
        "reference": atlas.reference,
        "thresholds": atlas.thresholds,
        "scalars": np.array([atlas.reference_bias, atlas.least_cosine, atlas.frame.freedom]),
    }
    notes = {"format": FORMAT, "names": json.dumps(atlas.names), "families": json.dumps(atlas.families)}
    write_arrays(
        path,
        {name: np.asarray(array, np.float32) for name, array in single.items()},
        {**notes, "about": json.dumps(dict(atlas.about))},
    )


def load_atlas(path: Path) -> DriftAtlas:
    """Read an atlas back.

    Raises:
        RunFolderError: The file is missing, damaged, no drift atlas, or of another format.
    """
    try:
        arrays, notes = read_arrays(path)
        found = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        bias, cosine, freedom = found["scalars"]
        names, families = (tuple(json.loads(notes[key])) for key in ("names", "families"))
        length = found["reference"].size
        whole = found["entries"].shape[::2] == (len(names), length) and found["frame"].shape == (length, length)
        if notes["format"] != FORMAT or not whole or not all_finite(arrays) or len(families) != len(names):
            raise ValueError
    except (RunFolderError, ValueError, KeyError, IndexError):
        raise RunFolderError(
            f"{path} is no whole drift atlas of format {FORMAT}. Allowed is the atlas.safetensors that `consilium "
            f"study drift` wrote; copy it anew."
        ) from None
    return DriftAtlas(
        names,
        families,
        found["entries"],
        Frame(found["frame"], int(freedom)),
        found["reference"],
        float(bias),
        found["thresholds"],
        float(cosine),
        json.loads(notes["about"]),
    )
