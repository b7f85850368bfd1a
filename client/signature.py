"""The site's signature: where the global model's attention falls on the site's patients."""

import numpy as np

from common.attention.base import AttentionModel
from common.attention.signature import Signature, SignatureMeter, choose_images
from common.config import AttentionSection
from common.data.base import Dataset

BATCH = 32
"""A transformer's maps of so many small images still fit a CPU's cache; 64 take 1.4 times as long per image."""


def measure(model: AttentionModel, data: Dataset, settings: AttentionSection, seed: int) -> Signature | None:
    """Measure the signature on the site's patients; None for a model that names no attention site.

    Always with global weights, in eval mode, without augmentation: else it would measure the weights' drift.
    """
    if not model.attention_sites:
        return None
    device = next(model.parameters()).device
    chosen = choose_images(data.patients, settings.images_per_patient, settings.patients, seed)
    meter = SignatureMeter(model)
    for start in range(0, len(chosen), BATCH):
        index = np.asarray(chosen[start : start + BATCH])
        meter.add(data.batch(index, device).images, data.patients[index])
    return meter.finish()
