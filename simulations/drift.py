"""What has happened to a site's images? A drift atlas learnt on source sites, judged, and held against new sites."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.arrays import arrays_digest, model_arrays
from common.attention.base import AttentionModel
from common.attention.schema import Schema
from common.data.base import Dataset
from common.data.federation import SiteData
from common.errors import ConfigError
from common.seeds import derive
from common.shift.drift_atlas import Clean, DriftAtlas, learn_atlas, load_atlas
from simulations.corruptions import CORRUPTIONS
from simulations.drift_rows import Rows, choose, clean_rows, corrupted_rows, patient_rows
from simulations.drift_trials import Trials, false_alarms, trials
from simulations.external_data import open_external, reading
from simulations.finished import Step
from simulations.judging import Case, Court, open_court
from simulations.results import FEDERATED
from simulations.robustness import fitting
from simulations.shift_rows import schema_for

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drift:
    """`sites`: what each new site resembles; `trials`: how often an atlas names what was done to unseen patients.

    `alarms`: share of clean windows of each source site that are told a drift by an atlas learnt without the site.
    Both are empty where a finished atlas was taken.
    """

    run: Path
    privacy: str
    modality: str
    seed: int
    atlas: DriftAtlas
    sites: list[Row]
    trials: Trials | None
    alarms: list[Row]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class New:
    """An archive of sites that the run has not seen, and how to read it: `data.KEY=VALUE` each."""

    archive: Path
    changes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Bench:
    """A run's federated model of one seed at every site, with what measures it."""

    court: Court
    seed: int
    schema: Schema

    def model(self, site: str) -> AttentionModel:
        """Load the model as a site has it."""
        return self.court.models(Case(self.seed, (FEDERATED,), site))[0]

    def draw(self, site: str) -> int:
        """Give the seed of a site's patients and corruptions."""
        return derive(self.court.seed, "drift", site)


def study_drift(
    run: Path,
    modality: str,
    given: Path | None = None,
    new: New | None = None,
    step: Step = lambda text: None,
    chosen: Sequence[str] = (),
) -> Drift:
    """Learn an atlas with the federated model of the first seed, or take a finished one, and name what sites show.

    Args:
        run: Folder of a finished run.
        modality: Whose corruptions are learnt; of a finished atlas it must be the modality.
        given: A finished atlas of the same model, in place of learning one.
        new: Sites to be named besides the run's held-out ones.
        step: Told what is about to be done.
        chosen: Corruptions of the modality; none for all that fit the run.

    Raises:
        RunFolderError: The run is not finished, its data are others now, or the atlas is damaged.
        AttentionError: The model names no attention site.
        ConfigError: No such modality, or an atlas of another model or modality.
        DataError: Fewer than two source sites, too few patients, or an archive that does not fit.
    """
    results, experiment, court = open_court(run)
    seed = experiment.study.seeds[0]
    sources = [site for site in court.federation.sites if site.role == "source"]
    model = court.models(Case(seed, (FEDERATED,), sources[0].name))[0]
    bench = Bench(court, seed, schema_for(model))
    names = fitting(modality, chosen, court)
    about = {"modality": modality, "schema": bench.schema.id, "model": arrays_digest(model_arrays(model))}
    judged, alarms = None, []
    if given is None:
        displaced, clean = _measure(bench, sources, names, step)
        families = [CORRUPTIONS.load(name).family for name in names]
        atlas = learn_atlas(displaced, families, list(clean.values()), about)
        judged = _judge(bench, sources, atlas, clean, step)
        alarms = false_alarms(displaced, families, clean, about)
    else:
        atlas = _take(given, about)
    found = list(_held_out(bench, atlas, step))
    notes: list[str] = []
    if new is not None:
        step(f"the sites of {new.archive.name}")
        data, notes = open_external(new.archive, reading(experiment.config, new.changes), results.record["data"])
        found += _external(bench, atlas, model, court.task.prepare(data))
    privacy = str(results.record["privacy"])
    return Drift(run, privacy, modality, seed, atlas, found, judged, alarms, notes)


def _measure(
    bench: Bench, sources: Sequence[SiteData], names: list[str], step: Step
) -> tuple[dict[str, Rows], dict[str, Clean]]:
    """Measure displacements on training patients, and what is clean on those that the model has not trained on."""
    displaced: dict[str, list[list[Rows]]] = {}
    clean: dict[str, Clean] = {}
    for site in sources:
        step(f"the displacements at {site.name}")
        model, draw = bench.model(site.name), bench.draw(site.name)
        clean[site.name] = _merged(
            [clean_rows(model, bench.schema, choose(_part(bench, site, part), draw)) for part in ("val", "test")]
        )
        chosen = choose(_part(bench, site, "train"), draw)
        still = patient_rows(model, bench.schema, chosen, chosen.images)
        for name, severity, rows in corrupted_rows(model, bench.schema, chosen, names, draw):
            by_severity = displaced.setdefault(name, [[] for _ in range(5)])
            by_severity[severity - 1].append((rows - still).mean(0))
    means = {name: np.stack([np.mean(sites, axis=0) for sites in found]) for name, found in displaced.items()}
    return means, clean


def _judge(bench: Bench, sources: Sequence[SiteData], atlas: DriftAtlas, clean: dict[str, Clean], step: Step) -> Trials:
    """Corrupt test patients, whom the displacements were not learnt on, and ask what they resemble."""
    found: list[Row] = []
    for site in sources:
        step(f"what unseen patients of {site.name} resemble")
        model = bench.model(site.name)
        others = np.concatenate([one.rows for name, one in clean.items() if name != site.name])
        chosen = choose(_part(bench, site, "test"), bench.draw(site.name))
        drawn = derive(bench.draw(site.name), "trials")
        for name, severity, rows in corrupted_rows(model, bench.schema, chosen, list(atlas.names), drawn):
            if len(rows) > 1:
                found += trials(atlas, rows, others, (site.name, name, severity))
    return Trials(found)


def _held_out(bench: Bench, atlas: DriftAtlas, step: Step) -> Sequence[Row]:
    found = []
    for site in bench.court.federation.sites:
        if site.role == "held-out":
            step(f"what {site.name} resembles")
            parts = [choose(_part(bench, site, part), bench.draw(site.name)) for part in ("train", "val", "test")]
            model = bench.model(site.name)
            rows = np.concatenate([patient_rows(model, bench.schema, one, one.images) for one in parts])
            found.append(_row(atlas, site.name, "held-out", rows))
    return found


def _external(bench: Bench, atlas: DriftAtlas, model: AttentionModel, data: Dataset) -> list[Row]:
    found = []
    for number, name in enumerate(data.site_names):
        part = data.subset(data.sites == number)
        if len(part):
            chosen = choose(part, bench.draw(name))
            rows = patient_rows(model, bench.schema, chosen, chosen.images)
            found.append(_row(atlas, name, "external", rows))
    return found


def _row(atlas: DriftAtlas, site: str, role: str, rows: Rows) -> Row:
    if len(rows) < 2:
        nothing = dict.fromkeys(("cosine", "support", "along", "threshold", "explained"), float("nan"))
        said = "one patient: no spread, so nothing can be said"
        return {"site": site, "role": role, "patients": len(rows), "kind": "too few", "said": said, "corruption": "",
                "severity": 0, **nothing, "mixture": ""}  # fmt: skip
    found = atlas.match(rows)
    return {
        "site": site,
        "role": role,
        "patients": len(rows),
        "kind": found.kind,
        "said": str(found),
        "corruption": found.corruption,
        "severity": found.severity,
        "cosine": found.cosine,
        "support": found.support,
        "along": found.along,
        "threshold": found.bounds.along,
        "explained": found.explained,
        "mixture": ", ".join(f"{name} {share:.0%}" for name, share in found.mixture[:3]),
    }


def _take(given: Path, about: dict[str, str]) -> DriftAtlas:
    """Load a finished atlas.

    Raises:
        ConfigError: It was learnt with another model or in another modality.
    """
    atlas = load_atlas(given)
    for key, meaning in (("model", "model"), ("schema", "signature"), ("modality", "modality")):
        if atlas.about.get(key) != about[key]:
            raise ConfigError(
                f"{given} was learnt with the {meaning} {str(atlas.about.get(key))[:12]!r}; this run has "
                f"{about[key][:12]!r}. A displacement means something for one model only; learn an atlas for this run."
            )
    return atlas


def _part(bench: Bench, site: SiteData, part: str) -> Dataset:
    return bench.court.data(site.name, part)


def _merged(parts: Sequence[Clean]) -> Clean:
    return Clean(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("rows", "cells", "labels")))
