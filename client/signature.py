"""The site's signature and health sums: where the global model's attention falls on the site's patients."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from client.health import groups
from common.attention.base import AttentionModel
from common.attention.health import HealthMeter
from common.attention.health_sums import HealthSums
from common.attention.signature import Signature, SignatureMeter, choose_images
from common.config import AttentionSection
from common.data.base import Dataset
from common.errors import AttentionError

BATCH = 32
"""A transformer's maps of so many small images still fit a CPU's cache; 64 take 1.4 times as long per image."""


def patient_means(
    model: AttentionModel, data: Dataset, images_per_patient: int, patients: int, seed: int, private: bool
) -> SignatureMeter:
    """Measure signatures alone, of chosen images; the meter knows every patient's mean.

    Where it is `private`, an image whose attention cannot be read makes its patient's mean not finite, and no error.
    """
    chosen = choose_images(data.patients, images_per_patient, patients, seed)
    meter, device = SignatureMeter(model), next(model.parameters()).device
    for start in range(0, len(chosen), BATCH):
        index = np.asarray(chosen[start : start + BATCH])
        (add_unread if private else _add)(meter, data.batch(index, device).images, data.patients[index])
    return meter


def measure(
    model: AttentionModel, data: Dataset, settings: AttentionSection, seed: int
) -> tuple[Signature | None, HealthSums | None]:
    """Measure both on the site's patients in one pass; None twice for a model that names no attention site.

    Always with global weights, in eval mode, without augmentation: else it would measure the weights' drift.
    """
    if not model.attention_sites:
        return None, None
    device = next(model.parameters()).device
    chosen = choose_images(data.patients, settings.images_per_patient, settings.patients, seed)
    meter = SignatureMeter(model)
    classes, count = groups(data, len(data.classes))
    with HealthMeter(model, count) as health:
        for start in range(0, len(chosen), BATCH):
            index = np.asarray(chosen[start : start + BATCH])
            meter.add(data.batch(index, device).images, data.patients[index])
            health.note(data.patients[index].tolist(), classes[index].tolist())
    return meter.finish(), health.finish()


def _add(meter: SignatureMeter, images: Tensor, patients: NDArray[np.str_]) -> None:
    meter.add(images, patients)


def add_unread(meter: SignatureMeter, images: Tensor, patients: NDArray[np.str_]) -> None:
    """Measure a batch; images whose attention cannot be read are noted as such, image by image.

    Under privacy a refusal would tell of the patient on whom the model fails, at no price.

    Shapes: images [B, C, H, W], patients str [B].
    """
    try:
        meter.add(images, patients)
    except AttentionError:
        for row, patient in enumerate(patients):
            try:
                meter.add(images[row : row + 1], [patient])
            except AttentionError:
                meter.add_unread(patient)
