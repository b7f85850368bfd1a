"""A small memory of a stream in which classes stay balanced, whatever order they arrive in."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True, eq=False)
class Remembered:
    """One image [C, H, W], the class it was given, how unsure that was (H / ln K), and images since."""

    image: Tensor
    label: int
    unsure: float
    age: int = 0


class BalancedMemory:
    """Category-balanced memory with timeliness and uncertainty.

    Each class has room for capacity / K images. Whoever scores worst, old or unsure, leaves first: from the new image's
    class if that is full, else from the largest classes once the memory is full; a new image that would score worst
    itself is not taken. Images stay in the process's memory, at most `capacity` of them.

    Source: Yuan et al. 2023, "Robust Test-Time Adaptation in Dynamic Scenarios", with λ_t = λ_u = 1.
    """

    def __init__(self, capacity: int, classes: int) -> None:
        self.capacity, self.room = capacity, capacity / classes
        self.kept: list[list[Remembered]] = [[] for _ in range(classes)]

    def __len__(self) -> int:
        return sum(map(len, self.kept))

    def add(self, image: Tensor, label: int, unsure: float) -> bool:
        """Offer an image, all others grow older; say whether it was taken."""
        new = Remembered(image, label, unsure)
        taken = self._make_room(label, self._score(new))
        if taken:
            self.kept[label].append(new)
        for item in self._all():
            item.age += 1
        return taken

    def images(self) -> tuple[Tensor, Tensor]:
        """Give what is kept, class by class, and its ages over the capacity: [M, C, H, W] and [M]."""
        items = self._all()
        return torch.stack([i.image for i in items]), torch.tensor([i.age / self.capacity for i in items])

    def _all(self) -> list[Remembered]:
        return [item for items in self.kept for item in items]

    def _score(self, item: Remembered) -> float:
        return 1 / (1 + math.exp(-item.age / self.capacity)) + item.unsure

    def _make_room(self, label: int, score: float) -> bool:
        if len(self.kept[label]) >= self.room:
            return self._drop([label], score)
        if len(self) < self.capacity:
            return True
        largest = max(map(len, self.kept))
        return self._drop([k for k, items in enumerate(self.kept) if len(items) == largest], score)

    def _drop(self, labels: list[int], score: float) -> bool:
        """Drop the worst of these classes if it scores worse than the new one."""
        worst = max((item for k in labels for item in self.kept[k]), key=self._score)
        if self._score(worst) <= score:
            return False
        self.kept[worst.label] = [item for item in self.kept[worst.label] if item is not worst]
        return True
