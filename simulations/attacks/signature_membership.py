"""Tracing in released signatures: was this patient in the cohort whose mean was released?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.attention.base import AttentionModel
from common.attention.signature import schema_of, signatures
from common.data.base import Dataset
from common.errors import DataError
from common.metrics.bootstrap import interval
from common.metrics.ranking import auroc
from common.seeds import generator
from simulations.attacks.claim import Claim
from simulations.attacks.finding import Finding, Findings
from simulations.attacks.private_sum import PrivateSum

Floats = NDArray[np.float64]
COHORTS = (10, 50, 200)
BATCH = 32
REFERENCE = 20
"""Fewest patients from whom the attacker knows what is usual."""
RESAMPLES = 1000
PROBES = 32
RIDGE = 0.01


def signature_membership(
    rows: Floats,
    private_sum: PrivateSum,
    claim: Claim,
    seed: int,
    cohorts: Sequence[int] = COHORTS,
    draws: int = 40,
) -> Findings:
    """Trace patients in released sums, one finding for each size of cohort.

    A draw takes 2n patients, lets each in by a coin, releases the sum of those who are in, and scores all 2n by the
    inner product xᵀ W r of what is released with the patient's own row, both centred on the mean of patients who take
    no part, whom the attacker knows. W = (n Σ + s² I)⁻¹ is the inverse covariance of the release, Σ that of the same
    known patients and s the noise, which the attacker learns by running the mechanism on nobody. In or out by a coin
    makes the two cases neighbours by one patient, which is what the claim is about.

    The interval is of the mean over draws, by resampling draws: it holds for these patients.

    Args:
        rows: What each patient contributes, see `patient_rows`.
        private_sum: The release of one cohort; `claim` is of one release.
        claim: What one release keeps.
        seed: Draws cohorts.
        cohorts: Expected sizes n; those for which there are too few patients are left out.
        draws: Releases per size.

    Shapes: rows [P, d].

    Raises:
        DataError: There are too few patients for any size.

    Source: Sankararaman et al. 2009; Dwork et al. 2015, "Robust Traceability from Trace Amounts", section 3; the
    weighting by W is the likelihood ratio of normal rows.
    """
    possible = [n for n in cohorts if 2 * n + REFERENCE <= len(rows)]
    if not possible:
        raise DataError(
            f"{len(rows)} patients are too few to trace in cohorts of {', '.join(map(str, cohorts))}. Needed are twice "
            f"the cohort and {REFERENCE} more; give more patients or smaller cohorts."
        )
    noise = float(np.std([private_sum(rows[:0]) for _ in range(PROBES)]))
    findings = []
    for n in possible:
        streams = [generator(seed, "trace", n, draw) for draw in range(draws)]
        areas = np.array([_draw(rows, n, private_sum, noise, each) for each in streams])
        resampled = generator(seed, "trace", n).integers(draws, size=(RESAMPLES, draws))
        findings.append(
            Finding(
                name=f"signature-membership n={n}",
                measure="area under the ROC curve",
                success=float(areas.mean()),
                interval=interval(areas[resampled].mean(axis=1)),
                baseline=0.5,
                claimed_bound=claim.area,
                samples=draws,
                details={
                    "cohort": n,
                    "entries": rows.shape[1],
                    "noise": noise,
                    "spread over draws": float(areas.std()),
                },
            )
        )
    return tuple(findings)


def _draw(rows: Floats, n: int, private_sum: PrivateSum, noise: float, rng: np.random.Generator) -> float:
    order = rng.permutation(len(rows))
    known = rows[order[2 * n :]]
    pool = rows[order[: 2 * n]] - known.mean(axis=0)
    members = rng.random(2 * n) < 0.5
    members[:2] = True, False  # else, in one of 2^2n draws, there would be no area
    scores = pool @ np.linalg.solve(release_covariance(known, n, noise), private_sum(pool[members]))
    return float(auroc(scores, members, np.ones((1, 2 * n)))[0])


def release_covariance(known: Floats, n: int, noise: float) -> Floats:
    """Give n Σ + s² I, Σ of few patients being made invertible by RIDGE of its mean variance. [R, d] -> [d, d]."""
    covariance = n * np.cov(known, rowvar=False)
    floor = RIDGE * float(np.trace(covariance)) / len(covariance) + noise**2
    return np.asarray(covariance + max(floor, 1e-300) * np.eye(len(covariance)))


def patient_rows(model: AttentionModel, data: Dataset, squares: bool = False) -> tuple[NDArray[np.str_], Floats]:
    """Measure what each patient contributes to a site's signature: s_p, and with `squares` s_p² beside it.

    Shapes: -> names [P], rows [P, d] or [P, 2 d], of norm at most 1 or √2.

    Raises:
        AttentionError: The model has no attention that can be measured.
    """
    schema = schema_of(model)
    device = next(model.parameters()).device
    parts = [
        signatures(model, data.batch(np.arange(start, min(start + BATCH, len(data))), device).images, schema)
        for start in range(0, len(data), BATCH)
    ]
    images = np.concatenate([part.cpu().numpy() for part in parts])
    names, owner = np.unique(data.patients, return_inverse=True)
    rows = np.zeros((len(names), images.shape[1]))
    np.add.at(rows, owner, images)
    rows /= np.bincount(owner)[:, None]
    return names, np.concatenate([rows, rows**2], axis=1) if squares else rows
