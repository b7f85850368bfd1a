"""Why does the model answer as it does? Every explanation that fits, at the sites of a finished run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError, UnknownNameError
from common.explanations import EXPLANATIONS
from common.items import need_images
from simulations.explain_site import Found, Row, SiteAtlas, SiteExplainer
from simulations.finished import Step
from simulations.judging import Case, open_court
from simulations.results import FEDERATED


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """All that was found. `skipped` says of each explanation that does not fit, why."""

    run: Path
    privacy: str
    method: str
    seed: int
    explanations: tuple[str, ...]
    skipped: dict[str, str]
    atlas: list[SiteAtlas]
    agreement: list[Row]
    tests: list[Row]
    attention: list[Row]


def explain_run(
    run: Path, sites: Sequence[str], method: str = FEDERATED, seed: int | None = None, step: Step = lambda text: None
) -> Explained:
    """Explain the model of one training at some sites (none: all), on their test images.

    What is explained is the expert's answer: the label, or the foreground that the model predicts.

    Raises:
        RunFolderError: The run is not finished, or has no such training.
        ConfigError: No such site, a seed that was not trained, or a run of bags.
        AttentionError: No explanation fits the model.
    """
    results, experiment, court = open_court(run)
    need_images("`consilium explain`", court.federation.image_size)
    names = [site.name for site in court.federation.sites]
    for site in sites:
        if site not in names:
            raise UnknownNameError("site", site, names)
    seeds = experiment.study.seeds
    chosen = seeds[0] if seed is None else seed
    if chosen not in seeds:
        raise ConfigError(
            f"seed {seed} was not trained in {run}. It has {', '.join(map(str, seeds))}; give one of them."
        )
    found: list[Found] = []
    skipped: dict[str, str] = {}
    for site in sites or names:
        (model,) = court.models(Case(chosen, (method,), site))
        parts = {name: EXPLANATIONS.load(name)() for name in EXPLANATIONS}
        skipped = {name: reason for name, part in parts.items() if (reason := part.fits(model))}
        fitting = {name: part for name, part in parts.items() if name not in skipped}
        found.append(SiteExplainer(court, site, model, fitting, step).explain())
    return Explained(
        run,
        str(results.record["privacy"]),
        method,
        chosen,
        tuple(name for name in EXPLANATIONS if name not in skipped),
        skipped,
        [one.atlas for one in found],
        [row for one in found for row in one.agreement],
        [row for one in found for row in one.tests],
        [row for one in found for row in one.attention],
    )
