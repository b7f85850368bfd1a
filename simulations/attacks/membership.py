"""Membership inference by likelihood ratios (LiRA): was this patient among those the model was trained on?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from simulations.attacks.claim import Claim
from simulations.attacks.finding import Finding, Findings
from simulations.attacks.intervals import area, rates_at, share

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FALSE_POSITIVES = (0.01, 0.001)
OWN_SPREAD = 32
"""Shadow models with and without a patient from which on the patient's own variance is trusted, not that of all."""
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Shadows:
    """What shadow models say of every patient, and whom each was trained on.

    Shapes: confidence float64 [K, P], the logit of the probability of the true answer; members bool [K, P].

    Raises:
        DataError: Shapes differ, a confidence is not finite, or a patient has fewer than two models on one side.
    """

    confidence: Floats
    members: Bools

    def __post_init__(self) -> None:
        fits = self.confidence.ndim == 2 and self.confidence.shape == self.members.shape
        if not fits or not np.isfinite(self.confidence).all():
            raise DataError(
                f"confidences of shape {self.confidence.shape} come with members of shape {self.members.shape}, or are "
                f"not finite. Allowed are two of one shape [models, patients]; lower the learning rate if it diverged."
            )
        fewest = min(int(each.sum(axis=0).min(initial=2)) for each in (self.members, ~self.members))
        if fewest < 2:
            raise DataError(
                f"a patient is in, or out of, the training of {fewest} shadow models. At least 2 of each are needed; "
                f"train more shadow models."
            )


def membership(target: Floats, members: Bools, shadows: Shadows, claim: Claim, seed: int) -> Findings:
    """Tell members from others by what the target model says of them.

    Three findings: true positives at 1 % and 0.1 % false positives, and the area under the ROC curve. The bound on
    true positives is taken at the upper end of the interval of the false positive rate: of 100 non-members, none above
    a threshold still allows a rate of 3.6 %. Intervals take patients to be told independently, which one model of all
    of them makes true only roughly.

    Args:
        target: Confidence of the attacked model for each patient, as in `Shadows`.
        members: Who it was trained on.
        shadows: Models trained in the same way on random halves of the same patients.
        claim: Of the target's training; `claim.swapped` where the number of members was fixed beforehand.
        seed: Of the bootstrap.

    Shapes: target, members [P].

    Raises:
        DataError: There are no members, or no others.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles", algorithm 1 and section VI.
    """
    if members.all() or not members.any() or target.shape != members.shape:
        raise DataError(
            f"{int(members.sum())} of {members.size} patients are members, for {target.size} confidences. Needed are "
            f"some who are and some who are not, and one confidence each."
        )
    scores = likelihood_ratios(target, shadows)
    found = [_true_positives(scores, members, claim, rate) for rate in FALSE_POSITIVES]
    value, between = area(scores, members, seed)
    whole = Finding(
        name="membership",
        measure="area under the ROC curve",
        success=value,
        interval=between,
        baseline=0.5,
        claimed_bound=claim.area,
        samples=members.size,
        details={"shadow models": len(shadows.members)},
    )
    return (*found, whole)


def likelihood_ratios(target: Floats, shadows: Shadows) -> Floats:
    """Score each patient by log N(c; μ_in, σ²_in) − log N(c; μ_out, σ²_out), c the target's confidence.

    Means are each patient's own; variances too from 32 models on either side on, else those of all patients together.

    Shapes: target [P] -> [P]. Source: Carlini et al. 2022, eq. 4 and section VI.D.
    """
    inside, outside = (_normal(shadows.confidence, side, target) for side in (shadows.members, ~shadows.members))
    return inside - outside


def _normal(confidence: Floats, side: Bools, target: Floats) -> Floats:
    """Log density of the target under the normal law of the models on one side, up to the constant."""
    count = side.sum(axis=0)
    mean = np.where(side, confidence, 0).sum(axis=0) / count
    squares = np.where(side, (confidence - mean) ** 2, 0).sum(axis=0)
    pooled = squares.sum() / (count - 1).sum()
    variance = np.maximum(squares / (count - 1) if count.min() >= OWN_SPREAD else pooled, LEAST_VARIANCE)
    return np.asarray(-0.5 * np.log(variance) - 0.5 * (target - mean) ** 2 / variance)


def _true_positives(scores: Floats, members: Bools, claim: Claim, rate: float) -> Finding:
    found = rates_at(scores, members, rate)
    return Finding(
        name="membership",
        measure=f"true positive rate at {100 * rate:g} % false positives",
        success=found.sensitivity,
        interval=share(found.true, found.members),
        baseline=rate,
        claimed_bound=claim.reach(found.false_at_most),
        samples=found.members,
        details={
            "false positives": found.false,
            "others": found.others,
            "false positive rate at most": found.false_at_most,
            "bound at the nominal rate": claim.reach(rate),
        },
    )
