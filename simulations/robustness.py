"""What would acquisition do to a finished run's model? Every corruption of a modality, prediction and attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.items import need_images
from common.seeds import derive
from simulations.corrupted_site import Draws, Judged, judge_site
from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import of_modality, refuse_elsewhere
from simulations.finished import Step
from simulations.judging import Case, Court, open_court, resample_seed
from simulations.results import FEDERATED, Results
from simulations.robustness_rows import overall, pool, rows, summary
from simulations.studies import identity

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Robustness:
    """`rows`: one per role, corruption and severity; `summary`: one per role and corruption; `roles`: one per role.

    All are means over the sites of a role (source, held-out) and over seeds. `of` is the run's `identity`.
    """

    run: Path
    of: str
    privacy: str
    metric: str
    modality: str
    seeds: tuple[int, ...]
    reference: Path | None
    rows: list[Row]
    summary: list[Row]
    roles: list[Row]


def study_corruptions(
    run: Path,
    modality: str,
    chosen: Sequence[str] = (),
    reference: Path | None = None,
    step: Step = lambda text: None,
) -> Robustness:
    """Judge the federated model of every seed on corrupted test images of every site.

    Args:
        run: Folder of a finished run.
        modality: One of MODALITIES.
        chosen: Corruptions of the modality; none for all that fit the run.
        reference: Another run of the same data and seeds, whose federated models are judged on the very same corrupted
            images: the errors of both make the corruption error.
        step: Told what is about to be done.

    Raises:
        RunFolderError: A run is not finished, or its data are others now.
        ConfigError: No such modality, a corruption that does not happen in it or does not fit the run, a run of bags,
            or a reference of other data, seeds or metric.
        UnknownNameError: No such corruption.
    """
    results, experiment, court = open_court(run)
    need_images("a study of corruptions", court.federation.image_size)
    names = fitting(modality, chosen, court)
    seeds = tuple(experiment.study.seeds)
    other = None if reference is None else _open_reference(reference, results, seeds, court)
    by_role: dict[str, list[list[Judged]]] = {}
    for number, seed in enumerate(seeds):
        for site in court.federation.sites:
            step(f"seed {seed}: the federated model at {site.name}")
            (model,) = court.models(Case(seed, (FEDERATED,), site.name))
            rival = other.models(Case(seed, (FEDERATED,), site.name))[0] if other else None
            draws = Draws(
                derive(court.seed, "corruptions", site.name),
                resample_seed(experiment.config, site.name),
                experiment.study.bootstrap,
            )
            data = court.data(site.name, "test")
            sites = by_role.setdefault(site.role, [[] for _ in seeds])
            sites[number].append(judge_site(model, rival, court.task, data, names, draws))
    metric = court.task.metrics[0]
    pooled = [pool(role, judged) for role, judged in by_role.items()]
    return Robustness(
        run,
        identity(results.record),
        str(results.record["privacy"]),
        metric,
        modality,
        seeds,
        reference,
        [row for one in pooled for row in rows(one, names, metric)],
        [row for one in pooled for row in summary(one, names, metric)],
        [overall(one, names, metric) for one in pooled],
    )


def fitting(modality: str, chosen: Sequence[str], court: Court) -> list[str]:
    """Name the corruptions of a modality, or those chosen of it, that the run's images and task allow.

    Images must have a corruption's channels; masks are not moved along, so no geometry for segmentation. Of a modality
    what does not fit is passed over; what was asked for by name is refused.

    Raises:
        UnknownNameError: No such corruption.
        ConfigError: No such modality, or a chosen corruption that does not happen in it or does not fit.
    """
    fits = [name for name in of_modality(modality) if _fits(name, court)]
    for name in chosen:
        refuse_elsewhere(name, modality)
        if name not in fits:
            raise ConfigError(
                f"corruption {name!r} does not fit this run: it needs other channels, or moves the image without its "
                f"masks. Allowed are {', '.join(fits)}."
            )
    return [name for name in fits if name in chosen] if chosen else fits


def _fits(name: str, court: Court) -> bool:
    found = CORRUPTIONS.load(name)
    return found.channels in (0, court.federation.channels) and not (court.task.dense and found.family == "geometry")


def _open_reference(reference: Path, results: Results, seeds: tuple[int, ...], court: Court) -> Court:
    """Open the run to be compared with.

    Raises:
        ConfigError: It was not judged on the same images by the same seeds and metric.
    """
    found, experiment, other = open_court(reference)
    for what in ("digest", "split_digest"):
        if found.record["data"][what] != results.record["data"][what]:
            raise ConfigError(
                f"{reference} has other images or another division than the run. A corruption error needs both models "
                f"on the same corrupted images; give a reference of the same data."
            )
    if tuple(experiment.study.seeds) != seeds or other.task.metrics[0] != court.task.metrics[0]:
        raise ConfigError(
            f"{reference} has the seeds {', '.join(map(str, experiment.study.seeds))} and is judged by "
            f"{other.task.metrics[0]}; the run has {', '.join(map(str, seeds))} and {court.task.metrics[0]}. Allowed "
            f"is a reference with the same; run it so."
        )
    return other
