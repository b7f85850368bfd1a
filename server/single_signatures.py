"""Which single sites' noisy signatures say more than their noise, where the server receives them one by one.

With noise at the site and no secure sum each site's release arrives alone. Its vector has noise in every entry; shown
beside others it would look like a shift of the site. Source: `common.privacy.signature.may_be_shown`.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.attention.prior import Prior
from common.errors import AggregationError
from common.privacy.signature import may_be_shown, pooled_prior, sensitivity
from common.protection import PrivacySection

Floats = NDArray[np.float64]


def showable(
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
