"""Local evaluation: predictions of one model, or of several averaged, and the sums of metrics that may leave."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from common.arrays import Arrays
from common.attention.base import AttentionModel
from common.data.base import Batch, Dataset
from common.metrics import METRICS
from common.metrics.base import Predictions
from common.tasks.base import Task

BATCH = 256
PIXELS = 2**21


class LossSum:
    """Adds up the loss over the images that pass by."""

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, loss: Tensor, count: int) -> None:
        """Add a batch's mean loss."""
        self.value += float(loss) * count


def predict(
    models: Sequence[AttentionModel], task: Task, data: Dataset, loss: LossSum | None = None, settle: bool = False
) -> Predictions:
    """Predict all of `data`; several models are an ensemble whose probabilities are averaged.

    Models keep their weights, and their train/eval mode is put back. `loss` adds up the first model's: a mean of
    probabilities has no logits. `settle` takes one half for a probability that is not finite: under privacy a refusal
    would tell of the patient on whom the model fails, at no price.

    Raises:
        ConsiliumError: Predictions are not finite, unless they are settled.
    """
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    found = _batches(models, task, data, loss)
    try:
        return task.collect(_settled(found) if settle else found, data.patients)
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def metric_sums(task: Task, predictions: Predictions) -> Arrays:
    """Give the vectors of sums of all metrics that can pool across sites."""
    built = {name: METRICS.load(name)() for name in task.metrics}
    return {name: metric.sums(predictions) for name, metric in built.items() if not metric.not_poolable}


@torch.no_grad()
def _batches(
    models: Sequence[AttentionModel], task: Task, data: Dataset, loss: LossSum | None
) -> Iterator[tuple[Tensor, Batch]]:
    device = next(models[0].parameters()).device
    size = max(1, min(BATCH, PIXELS // data.values))
    for start in range(0, len(data), size):
        index = np.arange(start, min(start + size, len(data)))
        batch = data.batch(index, device)
        logits = [model(batch.images).float() for model in models]
        if loss is not None:
            loss.add(task.loss(logits[0], batch), len(index))
        yield torch.stack([task.probabilities(one) for one in logits]).mean(0), batch


def _settled(found: Iterator[tuple[Tensor, Batch]]) -> Iterator[tuple[Tensor, Batch]]:
    for probabilities, batch in found:
        yield torch.where(probabilities.isfinite(), probabilities, 0.5), batch
