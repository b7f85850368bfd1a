"""Which sites take part in a round: a fixed number, drawn without replacement, the same for the same seed."""

import math
from collections.abc import Sequence

from common.seeds import generator


def draw_cohort(sites: Sequence[str], fraction: float, seed: int, round_: int) -> list[str]:
    """Draw ⌈fraction · sites⌉ sites, sorted by name; the draw depends on the names, not on their order."""
    names = sorted(sites)
    count = max(1, math.ceil(fraction * len(names) - 1e-9))
    drawn = generator(seed, "sampling", round_).choice(len(names), size=count, replace=False)
    return [names[index] for index in sorted(drawn)]
