"""What does a site's displacement resemble? Held against the displacements of known corruptions, or none of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from common.errors import DataError
from common.seeds import generator
from common.shift.moments import Vectors

Kind = Literal["resembles", "none of these", "no drift"]
RESAMPLES = 500
MAJORITY = 0.5
"""A corruption is named only if at least half of the resamples of the patients name it too."""
SLIGHT = 0.005
"""Shares of a mixture below this are left out."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a displacement must pass to be named.

    Args:
        along: How far clean patients reach along some corruption in one of twenty windows of so many.
        length: How far they lie from the reference in any direction, in one of twenty.
        cosine: What a corruption of another family reaches often; below it, nothing is named.
    """

    along: float
    length: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Resemblance:
    """What a displacement looks like.

    Args:
        kind: `no drift`: no farther, along a known corruption or in all, than clean patients get. `none of these`: a
            drift that points at no known corruption, or now at one and now at another. `resembles`: it does.
        corruption: The one that points most alike, whatever `kind` says.
        severity: The severity of it whose displacement lies nearest, 1 to S.
        cosine: Between the two, with what sampling adds to the displacement's length taken off; 0 to 1.
        along: How far the displacement reaches along it, in the frame's units.
        bounds: What it was held against.
        support: Share of resamples of the patients in which the same corruption points most alike, 0 to 1.
        explained: Share of the squared length that a mixture of corruptions explains, 0 to 1.
        mixture: Corruptions of that mixture with their shares of it, the largest first.
    """

    kind: Kind
    corruption: str
    severity: int
    cosine: float
    along: float
    bounds: Bounds
    support: float
    explained: float
    mixture: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        """Say it in words: "resembles motion blur, severity 3 (cosine 0.81)"."""
        if self.kind != "resembles":
            return self.kind
        return f"resembles {self.corruption.replace('_', ' ')}, severity {self.severity} (cosine {self.cosine:.2f})"


def resemble(rows: Vectors, bias: float, names: Sequence[str], entries: Vectors, bounds: Bounds) -> Resemblance:
    """Hold the displacement of a site's patients, the mean of `rows`, against the entries of an atlas.

    The corruption is the one with the largest cosine over all severities, the severity the nearest of its entries; a
    mixture is fitted by non-negative least squares (Lawson and Hanson 1974).

    Args:
        rows: Patients minus the reference's mean, in the frame of the entries, [P, d].
        bias: What sampling adds to the squared length of their mean, in expectation.
        names: K corruptions.
        entries: Displacements [K, S, d] of each in S severities.
        bounds: What must be passed.

    Raises:
        DataError: Other shapes, fewer than two patients, or values that are not finite.
    """
    _check(rows, names, entries)
    vector = rows.mean(0)
    along = _along(vector[None], entries)[0]
    best = int(along.argmax())
    reach = float(along[best])
    total = float(vector @ vector)
    length = max(total - bias, reach**2) ** 0.5
    cosine = max(0.0, reach / length) if length > 0 else 0.0
    drawn = generator(0, "resemblance").integers(len(rows), size=(RESAMPLES, len(rows)))
    support = float((_along(rows[drawn].mean(1), entries).argmax(1) == best).mean())
    named = reach > bounds.along and cosine >= bounds.cosine and support >= MAJORITY
    moved = reach > bounds.along or total**0.5 > bounds.length
    kind: Kind = "resembles" if named else "none of these" if moved else "no drift"
    severity = int(np.linalg.norm(entries[best] - vector, axis=1).argmin()) + 1
    return Resemblance(kind, names[best], severity, cosine, reach, bounds, support, *_mixture(vector, names, entries))


def reaches(vectors: Vectors, entries: Vectors) -> Vectors:
    """Give how far displacements reach along the corruption that points most alike. Shapes: [B, d] -> [B]."""
    return np.asarray(_along(vectors, entries).max(1))


def likeness(entries: Vectors) -> Vectors:
    """Give the largest cosine between two corruptions, over all pairs of severities. Shapes: [K, S, d] -> [K, K]."""
    units = _units(entries)
    return np.asarray(np.einsum("ksd,jtd->ksjt", units, units).max(axis=(1, 3)))


def _along(vectors: Vectors, entries: Vectors) -> Vectors:
    """Give the length along each corruption, the best of its severities. Shapes: [B, d], [K, S, d] -> [B, K]."""
    return np.asarray(np.einsum("bd,ksd->bks", vectors, _units(entries)).max(axis=2))


def _units(entries: Vectors) -> Vectors:
    lengths = np.linalg.norm(entries, axis=2, keepdims=True)
    return np.asarray(np.divide(entries, lengths, out=np.zeros_like(entries), where=lengths > 0))


def _mixture(vector: Vectors, names: Sequence[str], entries: Vectors) -> tuple[float, tuple[tuple[str, float], ...]]:
    """Fit non-negative weights; a corruption's share is the length of what it adds, all its severities together."""
    flat = entries.reshape(-1, entries.shape[2])
    weights, rest = nnls(flat.T, vector)
    total = float(vector @ vector)
    parts = np.linalg.norm((weights[:, None] * flat).reshape(entries.shape).sum(axis=1), axis=1)
    if total <= 0 or parts.sum() <= 0:
        return 0.0, ()
    shares: NDArray[np.float64] = parts / parts.sum()
    order = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k] > SLIGHT]
    return max(0.0, 1 - rest**2 / total), tuple((names[k], float(shares[k])) for k in order)


def _check(rows: Vectors, names: Sequence[str], entries: Vectors) -> None:
    if entries.ndim != 3 or entries.shape[0] != len(names) or not len(names):
        raise DataError(
            f"{len(names)} corruptions come with entries of shape {entries.shape}. Give [K, severities, d]."
        )
    if rows.ndim != 2 or rows.shape[1] != entries.shape[2]:
        raise DataError(
            f"patients of shape {rows.shape} meet an atlas of {entries.shape[2]} entries. Only those of one model "
            f"compare; measure with the model that the atlas was learnt with."
        )
    if len(rows) < 2 or not np.isfinite(rows).all():
        raise DataError(
            f"a site has {len(rows)} patients, or values that are not finite. At least 2 patients with finite "
            f"signatures are needed; collect more, or measure again."
        )
