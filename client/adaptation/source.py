"""What a method of adaptation may know of the sites that trained the model: statistics, never an image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from client.adaptation.fasa.bands import Bands
from client.adaptation.fasa.gate import Null
from client.adaptation.histograms import Histogram
from common.shift.class_law import ClassLaw


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean and (biased) variance of something, float32 of one shape."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """Each field is absent until it is measured (`client.adaptation.measure`); `needs` of a method says which it wants.

    All but `exclusive` are statistics of validation images of the source sites under the shipped model, on the CPU.
    """

    exclusive: bool = True
    """Whether classes exclude one another: all tasks but multilabel."""
    images: int = 0
    """How many were measured."""
    class_prior: Tensor | None = None
    """Share of each class among the labels (segmentation: among the pixels), float64 [K], sum 1; K = 2 if binary."""
    confusion: Tensor | None = None
    """Mean probabilities by true class (row), float64 [K, K], rows sum to 1; a class without images knows nothing."""
    features: Moments | None = None
    """What enters the head, [D]; over images and, for segmentation, pixels."""
    confidence: Tensor | None = None
    """How many images had a largest probability in each of 100 equal bins of [0, 1], float64 [100]."""
    fisher: Mapping[str, Tensor] | None = None
    """Diagonal Fisher information: mean squared gradient of −ln p(own answer), by scale or shift of normalisation."""
    activations: Mapping[str, Moments] | None = None
    """What each normalisation layer of the body puts out, place by place, [*S] by path of the layer."""
    histograms: Histogram | None = None
    """Soft histogram of each feature."""
    attention: ClassLaw | None = None
    """Attention signatures of images by class; absent for a model without attention or with answers per pixel."""
    class_features: ClassLaw | None = None
    """What enters the head, standardised per image, by class; absent as `attention`."""
    bands: Bands | None = None
    """Range of each head's entropy and each gate's saturation; absent for a model without attention."""
    null: Null | None = None
    """How far windows of source sites lie from one another; absent as `attention`."""
    extras: Mapping[str, object] | None = None
    """What a method of its own brings along, by name."""

    def beside(self, device: torch.device) -> "Source":
        """Give a copy whose statistics of features, activations and parameters, the large ones, lie on `device`."""
        fields = ("features", "fisher", "activations", "histograms")
        return replace(self, **{name: _on(getattr(self, name), device) for name in fields})


def _on(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _on(one, device) for name, one in value.items()}
    if isinstance(value, (Moments, Histogram)):
        return type(value)(*(_on(getattr(value, name), device) for name in type(value).__slots__))
    return value
