"""Faithfulness: does the answer fall when what the map shows is taken away, and rise when it is given back?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from common.explanations.agreement import check_maps
from common.seeds import generator

STEPS = 20
"""Five per cent of the pixels at a time."""
BLUR = 10 / 224
"""Deviation of the blur, in shares of the longer side."""
CONTROLS = 3
"""Random orders that the control is the mean of."""
Filler = Literal["blur", "even"]
FILLERS: tuple[Filler, ...] = ("blur", "even")
Score = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] -> probability of the answer that is explained, [B]."""


@dataclass(frozen=True, slots=True, eq=False)
class Faithfulness:
    """Areas under the answer's curve, per image, [N] each; `net` = insertion − deletion, higher is better."""

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]

    @property
    def net(self) -> NDArray[np.float64]:
        """Insertion − deletion."""
        return self.insertion - self.deletion


def faithfulness(score: Score, images: Tensor, maps: NDArray[np.floating], filler: Filler, seed: int) -> Faithfulness:
    """Take pixels away from the brightest on (deletion) and give them back from the brightest on (insertion).

    Args:
        score: The answer, the model in eval mode.
        images: What was explained.
        maps: How.
        filler: What stands in for a pixel: the image blurred (σ = 10 pixels at 224), or each channel's mean. Which one
            can change which map is best; show both.
        seed: Of ties.

    Shapes: images [N, C, H, W], maps [N, H, W].

    Source: Petsiuk et al. 2018, "RISE", section 4.3.

    Raises:
        AttentionError: Maps that are not finite or negative.
    """
    check_maps(maps)
    filling, order = fill(images, filler), ranking(maps, seed)
    return Faithfulness(area(curve(score, images, filling, order)), area(curve(score, filling, images, order)))


def control(score: Score, images: Tensor, filler: Filler, seed: int) -> NDArray[np.float64]:
    """Give the mean net of three random orders, [N]: about 0; what a map has beyond it is its own."""
    filling, size = fill(images, filler), images.shape[2] * images.shape[3]
    nets = []
    for number in range(CONTROLS):
        random = orders(len(images), size, seed, f"control-{number}")
        nets.append(area(curve(score, filling, images, random)) - area(curve(score, images, filling, random)))
    return np.asarray(np.mean(nets, axis=0))


def ranking(maps: NDArray[np.floating], seed: int) -> NDArray[np.int64]:
    """Order each image's pixels, brightest first; those that tie by lot, not by place. [N, H, W] -> [N, H W]."""
    flat = maps.reshape(len(maps), -1)
    lots = orders(*flat.shape, seed, "ties")
    return np.lexsort((lots, -flat), axis=1)


def curve(score: Score, before: Tensor, after: Tensor, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Turn `before` into `after` in 20 steps along the order and give the answer at each, ends included. [21, N]."""
    count, size = order.shape
    places = torch.from_numpy(order).to(before.device)
    values = []
    for step in range(STEPS + 1):
        changed = torch.zeros(count, size, dtype=torch.bool, device=before.device)
        changed.scatter_(1, places[:, : round(size * step / STEPS)], True)
        mixed = torch.where(changed.reshape(count, 1, *before.shape[2:]), after, before)
        with torch.no_grad():
            values.append(score(mixed).double().cpu().numpy())
    return np.stack(values)


def area(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under each curve by the trapezium rule, the axis of length one. [steps + 1, N] -> [N]."""
    return np.asarray(np.trapezoid(values, dx=1 / (len(values) - 1), axis=0))


def fill(images: Tensor, filler: Filler) -> Tensor:
    """Give the images without their detail: blurred, or each channel's mean everywhere. [N, C, H, W]."""
    if filler == "even":
        return images.mean((2, 3), keepdim=True).expand_as(images).contiguous()
    sigma = BLUR * max(images.shape[2:])
    blurred = gaussian_filter(images.cpu().numpy(), sigma=(0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(blurred).to(images)


def orders(count: int, size: int, seed: int, name: str) -> NDArray[np.int64]:
    """Draw a random order of `size` places for each of `count` images. [count, size]."""
    return generator(seed, name).permuted(np.tile(np.arange(size), (count, 1)), axis=1)
