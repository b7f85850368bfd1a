"""What a site knows for guidance: the prior that came, and what it remembers of its own last measurement."""

import logging

import numpy as np
import torch

from client.guidance.anatomy import atlas, share_outside
from client.guidance.base import Known
from client.guidance.guidance import Guidance
from client.site import Site
from client.store import Store
from common.attention.anatomy import disc
from common.attention.base import AttentionModel
from common.attention.prior import Prior
from common.attention.schema import schema_of
from common.attention.signature import Signature, check_same, choose_images, signatures
from common.config import AttentionSection, RunConfig
from common.data.base import Dataset
from common.errors import ConfigError
from common.messages import TrainRequest
from common.seeds import derive

log = logging.getLogger(__name__)
BATCH = 32
SUSPICIOUS = 0.05
"""More of the masks' foreground outside the region than this is said aloud."""


def prepare(config: RunConfig, site: Site, model: AttentionModel, request: TrainRequest) -> Guidance | None:
    """Build the round's guidance from the global model, before the site changes anything of it; None without any.

    Raises:
        AttentionError: The model names no attention site.
        ProtocolError: The prior is malformed or of another schema.
        ConfigError: `guidance.region` needs masks that the site does not have.
    """
    weights = config.guidance.weights()
    if not any(weights.values()):
        return None
    schema = schema_of(model)
    progress = (request.round - 1) / config.rounds
    prior = Prior.from_arrays(request.prior) if request.prior else None
    if prior:
        check_same(prior.schema, schema.id)
    own = memory(site).load(request.round - 1) if config.guidance.alignment else {}
    known = Known(
        model=model,
        schema=schema,
        prior=prior if progress >= config.guidance.start else None,
        own=own.get("mean"),
        classes=own.get("classes"),
        region=_region(config, site) if config.guidance.anatomy else None,
        flips=config.train.augment,
        progress=progress,
        seed=derive(config.seed, "guidance", site.name, request.round),
    )
    return Guidance(known, weights)


def remember(config: RunConfig, site: Site, model: AttentionModel, found: Signature, round_: int) -> None:
    """Keep the site's mean signature and those of its classes: with the prior of this measurement they steer alignment.

    A private release will give both (one class slot per patient); until then the site reads its own labels.
    """
    classes = class_means(model, site.data.train, config.attention, derive(config.seed, "signature", site.name))
    memory(site).save(round_, {"mean": found.mean, "classes": classes})


def memory(site: Site) -> Store:
    """Open what the site remembers of its own measurements.

    Raises:
        ConfigError: The site has no folder.
    """
    if site.store is None:
        raise ConfigError(
            "guidance.alignment remembers the site's own statistics and needs a folder. Set `out`, or the site's "
            "`state`."
        )
    return Store(site.store / "measured")


def class_means(model: AttentionModel, data: Dataset, settings: AttentionSection, seed: int) -> np.ndarray:
    """Give the mean signature of the images of each class that occurs; one row of all without single labels. [K, d]."""
    device = next(model.parameters()).device
    chosen = np.asarray(choose_images(data.patients, settings.images_per_patient, settings.patients, seed))
    parts = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    rows = np.concatenate([signatures(model, data.batch(part, device).images).cpu().numpy() for part in parts])
    labels = np.zeros(len(rows), np.int64)
    if data.labels is not None and data.labels.ndim == 1:
        labels = data.labels[chosen].astype(np.int64)
    return np.stack([rows[labels == label].mean(0) for label in np.unique(labels)])


def _region(config: RunConfig, site: Site) -> torch.Tensor:
    data = site.data.train
    height, width = data.images.shape[2:]
    masks = torch.zeros(0, height, width) if data.masks is None else torch.from_numpy(data.masks)
    if config.guidance.region == "disc":
        region = disc(height, width)
    else:
        region = atlas(masks if len(masks) else torch.zeros(1, height, width), config.train.augment)
    outside = share_outside(region, masks)
    if outside > SUSPICIOUS:
        log.warning("%.0f %% of the masks' foreground lies outside the region of guidance.anatomy", 100 * outside)
    return region
