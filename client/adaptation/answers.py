"""What a model's logits say about classes that exclude one another: a single logit is a choice of two."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def log_probabilities(logits: Tensor) -> Tensor:
    """Give log-probabilities of all classes, finite even where the model is very sure.

    Shapes: [B, 1, *S] -> float32 [B, 2, *S]; [B, K, *S] -> float32 [B, K, *S].
    """
    logits = logits.float()
    if logits.shape[1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], 1)
    return logits.log_softmax(1)


def entropy(log_p: Tensor) -> Tensor:
    """H = −Σ_k p_k ln p_k, in [0, ln K]. Shapes: [B, K, *S] -> [B, *S]."""
    return -(log_p.exp() * log_p).sum(1)


def per_image(values: Tensor) -> Tensor:
    """Average over pixels, where there are any. Shapes: [B, *S] -> [B]."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def rows(per_class: Tensor) -> Tensor:
    """Put images and pixels into one line. Shapes: [B, K, *S] -> [B · |S|, K]."""
    return per_class.movedim(1, -1).flatten(0, -2)


def classes_of(outputs: int) -> int:
    """Give K, the number of classes that a head of so many outputs tells apart."""
    return max(2, outputs)


def most_entropy(outputs: int) -> float:
    """Give ln K, the entropy of who knows nothing."""
    return math.log(classes_of(outputs))


def as_task(logits: Tensor, exclusive: bool) -> Tensor:
    """Turn logits into probabilities as the tasks of `common.tasks` do; float64 for whole images, float32 per pixel.

    Shapes: [B, K, *S] -> [B, K, *S].
    """
    logits = logits.double() if logits.ndim == 2 else logits.float()
    return logits.softmax(1) if exclusive and logits.shape[1] > 1 else logits.sigmoid()


def of_classes(probabilities: Tensor, outputs: int) -> Tensor:
    """Turn probabilities of all classes into the task's: of two, a head of one output tells the second only.

    Shapes: [B, max(2, K), *S] -> [B, K, *S], float64 where there are no pixels.
    """
    kept = probabilities if outputs > 1 else probabilities[:, 1:]
    return kept.double() if kept.ndim == 2 else kept.float()
