"""Which sites take part in a round: a fixed number, drawn without replacement, the same for the same seed."""

import math
from collections.abc import Sequence

from common.seeds import generator


def draw_cohort(sites: Sequence[str], fraction: float, seed: int, round_: int) -> list[str]:
    """Draw ⌈fraction · sites⌉ sites, sorted by name; the draw depends on the names, not on their order.

    Every site is as likely as any other, in every round anew.
    """
    names = sorted(sites)
    # 1e-9: 0.1 · 30 is 3.0000000000000004 in floats and means three.
    count = min(len(names), max(1, math.ceil(fraction * len(names) - 1e-9)))
    drawn = generator(seed, "sampling", round_).choice(len(names), size=count, replace=False)
    return [names[index] for index in sorted(drawn)]
