"""What FASA wants to know of the source sites, each as sums over images that add across sites."""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.adaptation.answers import classes_of
from client.adaptation.fasa.bands import Bands, bands_of, histograms
from client.adaptation.fasa.gate import Null
from client.adaptation.fasa.look import normalised, vitals_of
from client.adaptation.fasa.null_sums import null_of, null_sums
from client.adaptation.measure_base import Found, Seen
from client.adaptation.source import Source
from common.attention.base import AttentionModel
from common.attention.recorder import Recorder
from common.attention.schema import schema_of
from common.attention.signature import measuring, signatures
from common.shift.class_law import ClassLaw, class_sums


class _Labelled:
    """Keeps one row per image with its class and patient until the site's sums are made."""

    after: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: AttentionModel, known: Source) -> None:
        self._model, self._known = model, known
        self._fits = bool(model.attention_sites) and not model.dense and known.exclusive
        self._schema = schema_of(model) if self._fits else None
        self._rows: list[NDArray[np.float64]] = []
        self._labels: list[NDArray[np.int64]] = []
        self._patients: list[NDArray[np.str_]] = []
        self._classes = 0

    def add(self, seen: Seen) -> None:
        """Keep a batch's rows."""
        if not self._fits:
            return
        self._classes = classes_of(seen.logits.shape[1])
        self._rows.append(self._measured(seen).double().cpu().numpy())
        self._labels.append(seen.labels.cpu().numpy())
        self._patients.append(seen.patients)

    def _measured(self, seen: Seen) -> Tensor:
        return signatures(self._model, seen.images, self._schema)

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give class sums; none for a model without attention, or with answers per pixel or several findings."""
        if not self._rows:
            return {}
        return class_sums(np.concatenate(self._rows), np.concatenate(self._labels), self._classes)


class AttentionLaw(_Labelled):
    """Signatures of images by class."""

    @staticmethod
    def read(sums: Found) -> ClassLaw:
        """Make the law of classes."""
        return ClassLaw.of_sums(sums)


class FeatureLaw(_Labelled):
    """What enters the head, standardised per image, by class."""

    def _measured(self, seen: Seen) -> Tensor:
        return normalised(seen.features)

    @staticmethod
    def read(sums: Found) -> ClassLaw:
        """Make the law of classes."""
        return ClassLaw.of_sums(sums)


class NullBetweenSites(_Labelled):
    """Windows of this site against itself and against the others, whose law is known from all sites together."""

    after: ClassVar[tuple[str, ...]] = ("attention",)

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give counts of the windows' statistics."""
        if not self._rows or self._known.attention is None:
            return {}
        rows, labels = np.concatenate(self._rows), np.concatenate(self._labels)
        return null_sums(rows, labels, np.concatenate(self._patients), self._known.attention)

    @staticmethod
    def read(sums: Found) -> Null:
        """Make the two thresholds."""
        return null_of(sums)


class VitalBands:
    """Counts images by each head's entropy and each gate's saturation."""

    after: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: AttentionModel, known: Source) -> None:
        self._model = model
        self._counts: NDArray[np.float64] | None = None

    def add(self, seen: Seen) -> None:
        """Count a batch."""
        if not self._model.attention_sites:
            return
        with measuring(self._model), Recorder(self._model, reduce=vitals_of) as recorder:
            self._model(seen.images)
            found = torch.cat(list(recorder.take().values()), 1)
        counts = histograms(found.double().cpu().numpy())
        self._counts = counts if self._counts is None else self._counts + counts

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Give counts [v, 200]; none for a model without attention."""
        return {} if self._counts is None else {"counts": self._counts}

    @staticmethod
    def read(sums: Found) -> Bands:
        """Make the bands."""
        return bands_of(sums["counts"])
