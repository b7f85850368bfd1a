"""What every method of test-time adaptation promises; knows no concrete model and no data set."""

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from client.adaptation import ADAPTATIONS
from client.adaptation.answers import as_task
from client.adaptation.source import Source
from common.attention.base import AttentionModel
from common.errors import AdaptationError, DataError
from common.section import Section
from common.seeds import torch_generator


class MethodSettings(Section):
    """Settings that every method has; a method's own add to them, each with the source of its default."""

    seed: int = Field(default=0, ge=0, lt=2**63, description="draws views, restored weights and candidates")


@dataclass(slots=True)
class Counts:
    """What a method did since it was built or reset from outside."""

    updates: int = 0
    """Gradient steps, or generations of a search."""
    skipped: int = 0
    """Batches from which nothing was learnt although the method wanted to: none selected, or a loss not finite."""
    resets: int = 0
    """Times that the method itself went back to the shipped model."""


class Adaptation(ABC):
    """Contract of every method, which works on its own copy of the model.

    Probabilities have the shape of the model's logits and are what `task.probabilities` would give: float64 [B, K], one
    column for a binary task, or float32 [B, K, H, W] for segmentation. The copy stays in eval mode. Equal settings and
    equal batches in equal order give equal answers. A batch may hold one image.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    name: ClassVar[str]
    """In ADAPTATIONS."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Fields of `Source` without which the method cannot be built."""
    dense: ClassVar[bool] = False
    """Whether the method makes sense for one answer per pixel."""
    several: ClassVar[bool] = False
    """Whether the method makes sense where an image may have several findings at once."""

    settings: MethodSettings

    def __init__(self, model: AttentionModel, source: Source, settings: MethodSettings | None = None) -> None:
        """Copy the model and begin.

        Raises:
            AdaptationError: The method does not fit the model or the task, or the source lacks what it needs.
        """
        self._check(model, source)
        self.source = source.beside(next(model.parameters()).device)
        self.settings = self.Settings() if settings is None else settings
        self.model = deepcopy(model).eval().requires_grad_(False)
        self._prepare()
        self._shipped = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.reset()

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Say what the method looked for in the model and did not find, or nothing."""
        return ""

    @classmethod
    def unfit(cls, model: AttentionModel, source: Source) -> str:
        """Say why the method does not fit this model and task, or nothing; what it needs of the source aside."""
        if model.dense and not cls.dense:
            return "the model answers per pixel, and the method is defined for one answer per image"
        if not source.exclusive and not cls.several:
            return "an image may have several findings, and the method is defined for classes that exclude one another"
        return cls.lacks(model)

    def adapt(self, images: Tensor) -> Tensor:
        """Predict and learn from one batch of a stream; each method says in which order. No label is read.

        Shapes: images [B, C, H, W] in [-1, 1] -> probabilities as above.

        Raises:
            DataError: There is no image.
        """
        if images.ndim != 4 or not len(images):
            raise DataError(f"a batch has shape {tuple(images.shape)}. Needed are one or more images, [B, C, H, W].")
        with torch.enable_grad():
            return self._adapt(images).detach()

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Predict with what has been learnt so far, and learn nothing. Shapes as `adapt`."""
        return self._predict(images)

    @torch.no_grad()
    def reset(self) -> None:
        """Go back to the shipped model and forget the stream, bit for bit; counts start anew."""
        self._restore()
        self.counts = Counts()
        self.random = torch_generator(self.settings.seed, "adaptation", self.name)
        self._begin()

    @abstractmethod
    def adapted(self) -> tuple[str, ...]:
        """Name the parameters and buffers of the model that may move; all others stay bit for bit."""

    @abstractmethod
    def _adapt(self, images: Tensor) -> Tensor:
        """Predict and learn, gradients on."""

    def _predict(self, images: Tensor) -> Tensor:
        """Predict, gradients off; by itself with the copy as it is now."""
        return self.told(self.model(images))

    def _prepare(self) -> None:  # noqa: B027  # most methods change no layer
        """Choose and change layers of the copy, once, before its state is kept."""

    def _begin(self) -> None:  # noqa: B027  # some methods remember nothing
        """Make optimizer, memory and whatever else lives as long as a stream, gradients off."""

    @torch.no_grad()
    def _restore(self) -> None:
        state = self.model.state_dict()
        for name, value in self._shipped.items():
            state[name].copy_(value)

    def told(self, logits: Tensor) -> Tensor:
        """Turn logits into probabilities as the task does."""
        return as_task(logits, self.source.exclusive)

    def _check(self, model: AttentionModel, source: Source) -> None:
        reason = self.unfit(model, source)
        if reason:
            fitting = ", ".join(fitting_methods(model, source))
            raise AdaptationError(f"adaptation {self.name!r}: {reason}. Methods that fit this model: {fitting}.")
        missing = [need for need in self.needs if getattr(source, need) is None]
        if missing:
            raise AdaptationError(
                f"adaptation {self.name!r} needs {', '.join(missing)} of the source sites, which is not known. Measure "
                f"it on source validation images with `measure_source`, or take method none."
            )


def fitting_methods(model: AttentionModel, source: Source) -> list[str]:
    """Name the methods that fit the model and task, whatever is known of the source."""
    return [name for name in ADAPTATIONS if not ADAPTATIONS.load(name).unfit(model, source)]
