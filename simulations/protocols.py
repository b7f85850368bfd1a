"""PROTOCOLS: ways of training that are compared on the same splits.

A protocol says which trainings it needs and, for each site, which models judge it. A jury of several models is an
ensemble: their probabilities are averaged. Several juries for one site are several answers: their metrics are averaged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from common.registry import Registry

Group = tuple[str, ...]
Jury = tuple[str, ...]

PROTOCOLS = Registry(
    "protocol",
    {
        "federated": "simulations.protocols:Federated",
        "local": "simulations.protocols:Local",
        "pooled": "simulations.protocols:Pooled",
        "best-single-site": "simulations.protocols:BestSingleSite",
        "ensemble": "simulations.protocols:Ensemble",
        "leave-one-site-out": "simulations.protocols:LeaveOneSiteOut",
        "matrix": "simulations.protocols:Matrix",
    },
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One training: `groups` are its virtual sites, each with the images of its members (see `engine.Training`)."""

    name: str
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """The sites of a study. `validate` scores a training on the validation images of all source sites."""

    sources: Group
    held_out: Group
    validate: Callable[[str], float]


class Comparison(Protocol):
    """Contract of every protocol; `method` is its name in tables, `meaning` one line for a reader."""

    method: str
    meaning: str

    def plans(self, sources: Group) -> list[Plan]:
        """Give the trainings that are needed."""
        ...

    def juries(self, site: str, cast: Cast) -> list[Jury]:
        """Give the models that judge a site, by names of plans; none where the protocol has no answer."""
        ...


def local(site: str) -> str:
    """Name the training on one site alone."""
    return f"local/{site}"


class Federated:
    """All source sites train one model together."""

    method = "federated"
    meaning = "one model, trained together by all source sites; no image leaves a site"

    def plans(self, sources: Group) -> list[Plan]:
        """One training, one group per site."""
        return [Plan("federated", tuple((site,) for site in sources))]

    def juries(self, site: str, cast: Cast) -> list[Jury]:
        """The one model, everywhere."""
        return [("federated",)]


class Local:
    """Every site trains alone."""

    method = "local only"
    meaning = "each site's own model judged at home; at a held-out site the mean over all sites' own models"

    def plans(self, sources: Group) -> list[Plan]:
        """One training per site."""
        return [Plan(local(site), ((site,),)) for site in sources]

    def juries(self, site: str, cast: Cast) -> list[Jury]:
        """The site's own model; a held-out site has none and meets each of the others'."""
        return [(local(site),)] if site in cast.sources else [(local(name),) for name in cast.sources]


class Pooled:
    """All images in one place."""

    method = "pooled"
    meaning = "one model trained on the images of all source sites in one place: what sharing images would give"

    def plans(self, sources: Group) -> list[Plan]:
        """One training, all sites in one group."""
        return [Plan("pooled", (sources,))]

    def juries(self, site: str, cast: Cast) -> list[Jury]:
        """The one model, everywhere."""
        return [("pooled",)]


class BestSingleSite(Local):
    """The one local model that a consortium would pick."""

    method = "best single site"
    meaning = "the local model with the best mean validation score over the source sites, used everywhere"

    def juries(self, site: str, cast: Cast) -> list[Jury]:
        """The same local model at every site; chosen on validation images, never on test images."""
        return [(local(max(cast.sources, key=lambda name: cast.validate(local(name)))),)]


class Ensemble(Local):
    """All local models vote."""

    method = "ensemble of locals"
    meaning = "the probabilities of all local models averaged"

    def juries(self, site: str, cast: Cast) -> list[Jury]:
        """One jury of all local models."""
        return [tuple(local(name) for name in cast.sources)]


class LeaveOneSiteOut:
    """Every source site is once the one that the federation never saw."""

    method = "leave one site out"
    meaning = "federated without the judged site: what a hospital gets that does not train along"

    def plans(self, sources: Group) -> list[Plan]:
        """One federated training per site left out."""
        if len(sources) < 2:
            return []
        return [Plan(f"without/{site}", tuple((other,) for other in sources if other != site)) for site in sources]

    def juries(self, site: str, cast: Cast) -> list[Jury]:
        """The model that was trained without this site."""
        return [(f"without/{site}",)] if site in cast.sources and len(cast.sources) > 1 else []


class Matrix(Local):
    """Every local model at every site; it has a table of its own and no line in the headline."""

    method = "matrix"
    meaning = "each local model judged at each site"

    def juries(self, site: str, cast: Cast) -> list[Jury]:
        """None: the table of pairs is made from the local models directly."""
        return []
