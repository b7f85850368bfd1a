"""MEASURES: what can be measured at a source site, each as sums over its images that add across sites."""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from client.adaptation.activations import norm_layers, watching
from client.adaptation.affine import affine_names
from client.adaptation.answers import classes_of, log_probabilities, per_image, rows
from client.adaptation.fasa.measures import AttentionLaw, FeatureLaw, NullBetweenSites, VitalBands
from client.adaptation.histograms import LEAST, REACH, Histogram, soft_counts
from client.adaptation.measure_base import Found, Measure, Seen
from client.adaptation.source import Moments, Source
from common.attention.base import AttentionModel

BINS = 100
LEAST_SHARE = 0.01
"""No feature's range is narrower than this share of the widest: a dead one has none of its own."""
FISHER_IMAGES = 2000
"""Of a site; the paper's number."""


class ClassPrior:
    """Counts labels (segmentation: pixels) by class."""

    after: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: AttentionModel, known: Source) -> None:
        self._counts = np.zeros(1)

    def add(self, seen: Seen) -> None:
        """Count."""
        classes = classes_of(seen.logits.shape[1])
        counts = np.bincount(seen.labels.flatten().cpu().numpy(), minlength=classes)
        self._counts = self._counts + counts.astype(np.float64)

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give counts, [K]."""
        return {"counts": self._counts}

    @staticmethod
    def read(sums: Found) -> Tensor:
        """Divide."""
        return torch.from_numpy(sums["counts"] / sums["counts"].sum())


class Confusion:
    """Adds probabilities by true class."""

    after: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: AttentionModel, known: Source) -> None:
        self._total = np.zeros((1, 1))

    def add(self, seen: Seen) -> None:
        """Add the batch's rows."""
        p = rows(log_probabilities(seen.logits)).double().exp()
        total = p.new_zeros(p.shape[1], p.shape[1]).index_add_(0, seen.labels.flatten(), p)
        self._total = self._total + total.cpu().numpy()

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give the added probabilities, [K, K]."""
        return {"total": self._total}

    @staticmethod
    def read(sums: Found) -> Tensor:
        """Divide each row by its images; a class without any has the uniform row."""
        total = sums["total"]
        count = total.sum(1, keepdims=True)
        return torch.from_numpy(np.where(count > 0, total / np.maximum(count, 1e-12), 1 / len(total)))


class Features:
    """Adds what enters the head, and its squares."""

    after: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: AttentionModel, known: Source) -> None:
        self._sums = [np.zeros(1), np.zeros(1), np.zeros(1)]

    def add(self, seen: Seen) -> None:
        """Add."""
        found = rows(seen.features).double()
        parts = (torch.tensor([float(len(found))]), found.sum(0), found.square().sum(0))
        self._sums = [old + new.cpu().numpy() for old, new in zip(self._sums, parts, strict=True)]

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give count, sum and sum of squares, [1], [D], [D]."""
        return dict(zip(("count", "sum", "squares"), self._sums, strict=True))

    @staticmethod
    def read(sums: Found) -> Moments:
        """Give mean and variance."""
        return moments(sums["count"], sums["sum"], sums["squares"])


class Confidence:
    """Counts images by their largest probability; segmentation: the mean over pixels."""

    after: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: AttentionModel, known: Source) -> None:
        self._counts = np.zeros(BINS)

    def add(self, seen: Seen) -> None:
        """Count."""
        sure = per_image(log_probabilities(seen.logits).max(1).values.exp())
        found = (sure.double() * BINS).long().clamp(0, BINS - 1).cpu().numpy()
        self._counts = self._counts + np.bincount(found, minlength=BINS).astype(np.float64)

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give counts, [100]."""
        return {"counts": self._counts}

    @staticmethod
    def read(sums: Found) -> Tensor:
        """Keep the counts."""
        return torch.from_numpy(sums["counts"])


class Fisher:
    """Adds squared gradients of each image's −ln p of its own answer, for at most `FISHER_IMAGES` images of a site.

    Source: Niu et al. 2022 (EATA), with the square taken image by image, as its definition has it.
    """

    after: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: AttentionModel, known: Source) -> None:
        self._model = model
        self._names = affine_names(model)
        self._total = {name: model.get_parameter(name).detach().double() * 0 for name in self._names}
        self._count = 0

    def add(self, seen: Seen) -> None:
        """Add."""
        for image in seen.images[: max(0, FISHER_IMAGES - self._count)]:
            own = {name: self._model.get_parameter(name).detach().requires_grad_(True) for name in self._names}
            with torch.enable_grad():
                log_p = log_probabilities(functional_call(self._model, own, (image[None],)))
                loss = -log_p.max(1).values.mean()
            for name, grad in zip(self._names, torch.autograd.grad(loss, list(own.values())), strict=True):
                self._total[name] += grad.double().square()
            self._count += 1

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give the count and the sum by parameter."""
        return {"count": np.array(float(self._count)), **{n: t.cpu().numpy() for n, t in self._total.items()}}

    @staticmethod
    def read(sums: Found) -> dict[str, Tensor]:
        """Divide."""
        return {n: torch.from_numpy(t / sums["count"]).float() for n, t in sums.items() if n != "count"}


class Activations:
    """Adds what each normalisation layer puts out, place by place, and its squares."""

    after: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: AttentionModel, known: Source) -> None:
        self._model, self._paths = model, norm_layers(model)
        self._count = 0
        self._sums: dict[str, NDArray[np.float64]] = {}

    def add(self, seen: Seen) -> None:
        """Look again and add."""
        with torch.no_grad(), watching(self._model, self._paths) as found:
            self._model(seen.images)
        self._count += len(seen.images)
        for path, values in found.items():
            wide = values.double()
            for key, part in (("sum", wide.sum(0)), ("squares", wide.square().sum(0))):
                place = f"{path}.{key}"
                self._sums[place] = self._sums.get(place, 0.0) + part.cpu().numpy()

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give the count, and by layer the sum and the sum of squares, [*S] of a layer."""
        return {"count": np.array(float(self._count)), **self._sums}

    @staticmethod
    def read(sums: Found) -> dict[str, Moments]:
        """Give mean and variance by layer."""
        paths = [name.removesuffix(".sum") for name in sums if name.endswith(".sum")]
        return {path: moments(sums["count"], sums[f"{path}.sum"], sums[f"{path}.squares"]) for path in paths}


class Histograms:
    """Adds soft counts of each feature in bins around the mean that all sites together have."""

    after: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(self, model: AttentionModel, known: Source) -> None:
        assert known.features is not None  # `after` says so
        deviation = known.features.variance.sqrt()
        deviation = deviation.clamp_min(max(LEAST_SHARE * float(deviation.max()), LEAST))
        device = next(model.parameters()).device
        self._low = (known.features.mean - REACH * deviation).to(device)
        self._high = (known.features.mean + REACH * deviation).to(device)
        self._counts = np.zeros((1, 1))

    def add(self, seen: Seen) -> None:
        """Count."""
        counts = soft_counts(rows(seen.features).float(), self._low, self._high)
        self._counts = self._counts + counts.double().cpu().numpy()

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give the counts, [D, BINS]; and the range times the images, since only sums are added."""
        images = float(self._counts[0].sum())
        low, high = (edge.double().cpu().numpy() * images for edge in (self._low, self._high))
        return {"counts": self._counts, "low": low, "high": high}

    @staticmethod
    def read(sums: Found) -> Histogram:
        """Divide."""
        total = sums["counts"].sum(1, keepdims=True)
        low, high = (torch.from_numpy(sums[name] / total[:, 0]).float() for name in ("low", "high"))
        return Histogram(low, high, torch.from_numpy(sums["counts"] / total).float())


def moments(count: NDArray[np.float64], total: NDArray[np.float64], squares: NDArray[np.float64]) -> Moments:
    """Turn sums into mean and biased variance, float32; rounding never makes a variance negative."""
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0)
    return Moments(torch.from_numpy(mean).float(), torch.from_numpy(variance).float())


MEASURES: dict[str, type[Measure]] = {
    "class_prior": ClassPrior,
    "confusion": Confusion,
    "features": Features,
    "confidence": Confidence,
    "fisher": Fisher,
    "activations": Activations,
    "histograms": Histograms,
    "attention": AttentionLaw,
    "class_features": FeatureLaw,
    "bands": VitalBands,
    "null": NullBetweenSites,
}
