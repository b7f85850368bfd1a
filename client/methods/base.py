"""What a method at the sites gets, and when it is asked: before, during and after a round of local training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from common.arrays import Arrays
from common.attention.base import AttentionModel
from common.config import StrategySection, TrainSection
from common.data.base import Batch, Dataset
from common.tasks.base import Task


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Begun:
    """A round that begins at a site."""

    model: AttentionModel
    """Holds the global arrays; it is trained afterwards, so that what should stay must be copied."""
    task: Task
    data: Dataset
    train: TrainSection
    strategy: StrategySection
    round: int = 1
    shared: Arrays = field(default_factory=dict)
    """What the server sent beside the arrays; empty before its first."""
    kept: Arrays = field(default_factory=dict)
    """What `kept` gave in the last round that the site took part in; empty before its first."""


class Method:
    """Contract: deterministic in what has begun; each of the parts below does nothing unless a method says so.

    All are called in the order in which they stand; `term` and `correct` once per gradient and step.
    """

    keeps: ClassVar[bool] = False
    """Whether the site needs a folder to keep something between rounds."""
    radius: float = 0.0
    """Least radius of sharpness-aware minimisation (`client/sharpness.py`)."""

    def __init__(self, begun: Begun) -> None:
        self.begun = begun

    @contextmanager
    def attached(self, model: AttentionModel) -> Iterator[None]:
        """Be there while `model` trains; it stands where training begins, with what is the site's own."""
        yield

    def term(self, batch: Batch) -> Tensor | None:
        """Give what is added to the loss of the batch that the model just saw, a scalar; None for nothing."""
        return None

    def correct(self, model: AttentionModel) -> None:
        """Change the gradients before the optimizer sees them."""

    def told(self, model: AttentionModel, steps: int) -> Arrays:
        """Give what goes to the server beside the update, now that `model` has made `steps` steps."""
        return {}

    def kept(self) -> Arrays:
        """Give what the site keeps for its next round; asked after `told`."""
        return {}
