"""Folds of a benchmark: who trains, and on whose images the models of the fold are judged."""

from dataclasses import dataclass
from typing import Literal

from common.errors import ConfigError

Names = tuple[str, ...]
Split = Literal["val", "test", "all"]
"""`all` is every image of a site: right only where none of them was trained on."""


@dataclass(frozen=True, slots=True)
class Fold:
    """`sources` train; each site of `judged` meets the models of the fold with the images of one split."""

    name: str
    sources: Names
    judged: tuple[tuple[str, Split], ...]


def leave_one_site_out(sources: Names, held_out: Names) -> list[Fold]:
    """Each source site is once the hospital that nobody has seen: all its images judge. Held-out sites stay aside.

    Raises:
        ConfigError: There is one source site only.
    """
    if len(sources) < 2:
        raise ConfigError(
            f"leave-one-site-out needs two sites that train and the data have {len(sources)} "
            f"({', '.join(sources) or 'none'}). Hold fewer out in `data.held-out`, or make sites with `data.partition`."
        )
    return [
        Fold(f"without {site}", tuple(other for other in sources if other != site), ((site, "all"),))
        for site in sources
    ]


def held_out(sources: Names, held_out: Names) -> list[Fold]:
    """One fold: all source sites train, the sites of `data.held-out` judge.

    Raises:
        ConfigError: No site is held out.
    """
    if not held_out:
        raise ConfigError(
            f"the protocol held-out needs sites that never train and `data.held-out` is empty. Name some of "
            f"{', '.join(sources)}, or take leave-one-site-out."
        )
    return [Fold("held-out", sources, tuple((site, "all") for site in held_out))]


def in_federation(sources: Names, held_out: Names) -> list[Fold]:
    """One fold: all source sites train, and each judges on its own test images, with its personal parts if any."""
    return [Fold("all", sources, tuple((site, "test") for site in sources))]


def site_by_site(sources: Names, held_out: Names) -> list[Fold]:
    """One fold per site that trains alone; every site judges, the one at home with its test images."""
    everywhere = (*sources, *held_out)
    return [
        Fold(home, (home,), tuple((site, "test" if site == home else "all") for site in everywhere)) for home in sources
    ]
