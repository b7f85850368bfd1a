"""What the signatures in sums say: the prior, how noisy it is, and which single sites' vectors may be shown.

With noise at the site and no secure sum each site's release arrives alone. Its vector has noise in every entry; shown
beside others it would look like a shift of the site. Source: `common.privacy.signature.may_be_shown`.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.arrays import Arrays
from common.attention.prior import Prior, pool
from common.attention.signature import Signature
from common.config import RunConfig
from common.contribution import PATIENTS, RELEASE, SQUARES, TOTAL
from common.errors import AggregationError
from common.messages import EvaluateRequest, TrainRequest
from common.privacy.signature import may_be_shown, pooled_prior, sensitivity
from common.protection import PrivacySection
from common.secagg.params import threshold

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReleasedSignatures:
    """Reads them for one run; `classes` route patients under privacy, `schema` is of the model's signature."""

    config: RunConfig
    classes: int
    schema: str

    def prior(self, whole: Mapping[str, Floats], request: TrainRequest | EvaluateRequest) -> Prior | None:
        """Give the prior that a sum holds; None where it holds none, or nothing but noise."""
        if RELEASE in whole:
            clip = self.config.privacy.signature_clip
            try:
                return pooled_prior(whole[RELEASE], self.classes, request.reference["reference"], clip, self.schema)
            except AggregationError as error:
                log.warning("no prior this time: %s", error)
        elif TOTAL in whole and whole[PATIENTS][0] > 0:
            squares = whole[SQUARES].clip(min=0)
            return pool([Signature(self.schema, int(whole[PATIENTS][0]), whole[TOTAL], squares)])
        return None

    def prior_noise(self, prior: Prior, sites: int, cohort: int) -> float:
        """Give the standard deviation of the noise on each entry of the mean of a prior that sites of a cohort made.

        Classes' slots are added up, each with its noise. Sites that add all of it add it each; of shares, more than the
        priced ones are in a sum when more sites live than must.
        """
        privacy, secure = self.config.privacy, self.config.secure_aggregation
        noises = {"site": float(sites), "central": 1.0}.get(privacy.placement, 0.0)
        if privacy.placement == "distributed":
            noises = sites / (threshold(cohort, secure.colluders) - secure.colluders)
        deviation = privacy.signature_noise_multiplier * sensitivity(privacy.signature_clip)
        return deviation * math.sqrt(self.classes * noises) / prior.patients

    def showable(self, single: Mapping[str, Arrays], request: TrainRequest | EvaluateRequest) -> dict[str, list[float]]:
        """Give the single signatures that may be shown; none where the server adds the noise, or sees sums alone."""
        releases = {site: each[RELEASE] for site, each in single.items() if RELEASE in each}
        if not releases or self.config.privacy.placement != "site":
            return {}
        reference = request.reference["reference"]
        return said_beyond_noise(releases, self.classes, reference, self.config.privacy, self.schema)


def said_beyond_noise(
    releases: Mapping[str, Floats], classes: int, reference: Floats, privacy: PrivacySection, schema: str
) -> dict[str, list[float]]:
    """Give the mean signatures of the sites whose vectors may be shown.

    The usual distance between sites is the median distance of one site's mean from the others', less what noise adds.

    Args:
        releases: Each site's noisy sum, [classes · (2d + 1)].
        classes: Classes by which patients were routed.
        reference: s₀ of the releases, [d].
        privacy: The run's noise and clip.
        schema: Of the signature.
    """
    read: dict[str, Prior] = {}
    for site, total in releases.items():
        try:
            read[site] = pooled_prior(total, classes, reference, privacy.signature_clip, schema)
        except AggregationError:
            continue  # nothing but noise
    if len(read) < 2:
        return {}
    length = len(reference)
    # The classes' slots are added up, with the noise of each.
    noise = privacy.signature_noise_multiplier * sensitivity(privacy.signature_clip) * math.sqrt(classes)
    variance = {site: length * (noise / prior.patients) ** 2 for site, prior in read.items()}
    away = []
    for site, prior in read.items():
        others = [other for other in read if other != site]
        weights = np.array([read[other].patients for other in others], np.float64)
        weights /= weights.sum()
        centre = np.sum([w * read[other].mean for w, other in zip(weights, others, strict=True)], axis=0)
        added = variance[site] + sum(w**2 * variance[other] for w, other in zip(weights, others, strict=True))
        away.append(math.sqrt(max(0.0, float(np.sum((prior.mean - centre) ** 2)) - added)))
    usual = float(np.median(away))
    return {
        site: prior.mean.tolist() for site, prior in read.items() if may_be_shown(noise, length, prior.patients, usual)
    }
