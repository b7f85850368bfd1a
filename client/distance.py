"""How far this site's attention lies from the others': one noisy number, which costs little at any length."""

import math

import numpy as np

from client.charge import charged
from client.signature import patient_means
from client.site import Site
from common.attention.base import AttentionModel
from common.attention.prior import Prior
from common.attention.schema import schema_of
from common.config import RunConfig
from common.errors import ProtocolError
from common.messages import DistanceReply, DistanceRequest
from common.privacy.distance_release import DistanceRelease
from common.privacy.plan import Plan, distance_released
from common.randomness import SecureRandom
from common.seeds import derive


def tell_distance(config: RunConfig, site: Site, model: AttentionModel, request: DistanceRequest) -> DistanceReply:
    """Measure, authorise, add noise, record, and tell.

    Raises:
        BudgetExhaustedError: It would cost more than the site or the run allows, as asking again does.
        DataError: The prior rests on this site alone, or the site has fewer patients than declared.
        ProtocolError: The run releases no distances, the site trains nothing, or the prior is of another model.
    """
    if not distance_released(config) or site.data.role != "source" or not model.attention_sites:
        raise ProtocolError("the run's settings release no distance of this site. Ask for what they release.")
    prior, schema = Prior.from_arrays(request.prior), schema_of(model)
    if prior.schema != schema.id:
        raise ProtocolError("the prior is of another model than the arrays. Run the same version everywhere.")
    if not 0 <= request.prior_noise < math.inf:
        raise ProtocolError(f"the prior has noise of {request.prior_noise}. It is finite, and 0 or more.")
    release = DistanceRelease.planned(prior, request.prior_noise, config.privacy)
    with charged(config, site, Plan(config, site.cohort).of_distance(), []) as charge:
        data, seed = site.data.train, derive(config.seed, "signature", site.name)
        means = patient_means(model, data, config.attention.images_per_patient, len(data), seed, private=True).means()
        distance = release.release(np.array(list(means.values())).reshape(len(means), -1), SecureRandom())
        charge.leave({"distance": np.array([distance])})
    return DistanceReply(site=site.name, distance=distance, noise=release.noise)
