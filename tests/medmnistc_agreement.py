"""Our corruptions beside those of the package `medmnistc` that have the same name, on the same pictures.

`python -m tests.medmnistc_agreement` prints the table of docs/reference/corruptions.md where the package is installed.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, laplace

from common.shift.dyads import spearman
from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import SEVERITIES, corrupt

SIDE, PICTURES = 224, 3
"""The package works at 224 pixels a side, three channels."""
FROM = ("dermamnist", "chestmnist", "pathmnist", "organamnist", "tissuemnist", "breastmnist")
"""Its data sets, each with parameters of its own; of those that have a corruption the first."""
STEPS = np.array(SEVERITIES, np.float64)
Pictures = np.ndarray


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean, contrast and blur energy at severity 5, times that of the clean pictures; strength per severity.

    Strength is the mean absolute difference in shares of white.

    `alike` is the correlation of what the two add to a picture, at the severities whose strengths lie closest.
    """

    data_set: str
    ours: dict[str, float]
    theirs: dict[str, float]
    strength: np.ndarray
    strength_theirs: np.ndarray
    alike: float

    @property
    def order(self) -> float:
        """Spearman of severity and strength in the package: 1 where its severities grow as ours do."""
        return spearman(STEPS, self.strength_theirs)


def pictures() -> Pictures:
    """Draw smooth shapes with an edge and fine texture in three colours: something to blur, brighten and store."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    found = []
    for _ in range(PICTURES):
        a, b, c, d = rng.uniform(0.3, 0.7, 4)
        shape = 0.35 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.05) + 0.25 * (np.hypot(y - c, x - d) < 0.15)
        texture = gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 2.0) * 0.25
        found.append((0.2 + shape + texture) * rng.uniform(0.8, 1.0, (3, 1, 1)))
    return np.rint(np.clip(found, 0, 1) * 255).astype(np.uint8)


def shared(registry: ModuleType) -> dict[str, str]:
    """Name the corruptions that both have, and the data set whose parameters are taken."""
    tables = registry.CORRUPTIONS_DS
    return {
        name: next(data_set for data_set in FROM if name in tables[data_set])
        for name in CORRUPTIONS
        if any(name in tables[data_set] for data_set in FROM)
    }


def agreement(registry: ModuleType, name: str, data_set: str) -> Agreement:
    """Corrupt the same pictures by both, in five severities."""
    clean = pictures()
    act = registry.CORRUPTIONS_DS[data_set][name]
    ours = [corrupt(clean, name, severity, 3) for severity in SEVERITIES]
    theirs = [_theirs(act, clean, place) for place in range(5)]
    strengths = [np.array([_strength(clean, each) for each in both]) for both in (ours, theirs)]
    gaps = np.abs(np.log(strengths[0][:, None] / strengths[1][None]))
    left, right = np.unravel_index(gaps.argmin(), gaps.shape)
    added = [each.astype(float).ravel() - clean.ravel() for each in (ours[left], theirs[right])]
    return Agreement(
        data_set, _changes(clean, ours[-1]), _changes(clean, theirs[-1]), *strengths, float(np.corrcoef(*added)[0, 1])
    )


def _theirs(act: Any, clean: Pictures, place: int) -> Pictures:
    np.random.seed(5)  # the package draws from the global generator
    if not hasattr(act, "rng"):  # version 0.1.0 asks for one in its impulse noise and gives none
        act.rng = np.random.default_rng(5)
    found = [act.apply(Image.fromarray(one.transpose(1, 2, 0)), severity=place) for one in clean]
    return np.stack([np.asarray(one, np.uint8).transpose(2, 0, 1) for one in found])


def _strength(clean: Pictures, now: Pictures) -> float:
    return float(np.abs(now.astype(float) - clean).mean() / 255)


def _changes(clean: Pictures, now: Pictures) -> dict[str, float]:
    before, after = _measures(clean), _measures(now)
    return {key: after[key] / before[key] for key in before}


def _measures(images: Pictures) -> dict[str, float]:
    values = images.astype(float) / 255
    edges = np.mean([laplace(channel) ** 2 for image in values for channel in image])
    return {"mean": float(values.mean()), "contrast": float(values.std()), "blur energy": float(edges)}


def main() -> None:
    """Print one line per shared corruption."""
    from medmnistc.corruptions import registry

    print("| corruption | their parameters | mean | contrast | blur energy | strength 1–5 | rank | alike |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, data_set in shared(registry).items():
        found = agreement(registry, name, data_set)
        changes = [f"{found.ours[key]:.3g} / {found.theirs[key]:.3g}" for key in found.ours]
        ends = [f"{each[0]:.3f}–{each[-1]:.3f}" for each in (found.strength, found.strength_theirs)]
        cells = [f"`{name}`", data_set, *changes, " / ".join(ends), f"{found.order:.1f}", f"{found.alike:.2f}"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
