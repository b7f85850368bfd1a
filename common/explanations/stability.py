"""Stability: does the map stay when the image changes as little as noise changes it?"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.attention.base import AttentionModel
from common.attention.signature import measuring
from common.explanations.alike import spearman
from common.explanations.base import Explanation, predicted
from common.seeds import torch_generator

DRAWS, NOISE = 8, 0.02
"""So many noisy copies of each image; deviation of the noise in shares of the range of pixel values."""


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """`alike`: mean Spearman between the maps of two copies, [N]. `mean`, `spread`: over copies, [N, H, W].

    A page may show mean − spread, which is bright only where the map does not hang on noise.
    """

    alike: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


def stability(
    explain: Explanation, model: AttentionModel, images: Tensor, targets: Tensor | None, seed: int
) -> Stability:
    """Explain each image under eight draws of Gaussian noise, always for the same answer.

    Without targets that is what the model says of the clean image (a dense model: of each copy its own).

    Shapes: images [N, C, H, W] in [-1, 1].

    Raises:
        AttentionError: As the explanation does.
    """
    if targets is None and not model.dense:
        targets = what_it_says(model, images)
    random = torch_generator(seed, "noise")
    maps = []
    for _ in range(DRAWS):
        noise = torch.randn(images.shape, generator=random).to(images) * (2 * NOISE)
        maps.append(explain(model, (images + noise).clamp(-1, 1), targets).double().cpu().numpy())
    alike = np.mean([spearman(left, right) for left, right in combinations(maps, 2)], axis=0)
    return Stability(alike, np.mean(maps, axis=0), np.std(maps, axis=0))


def what_it_says(model: AttentionModel, images: Tensor) -> Tensor:
    """Give the predicted class of each image, the model in eval mode meanwhile. [N]."""
    with measuring(model):
        return predicted(model(images))
