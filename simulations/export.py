"""Packs a trained model for hospitals: its arrays, and an artefact that says how to build it and what it knows."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from client.adaptation import ADAPTATIONS
from client.adaptation.artefact import Card, describe, file_digest, write_artefact
from client.adaptation.measure import add_sums, measure_sums, passes, source_of
from client.adaptation.source import Source
from common.arrays import model_arrays, write_arrays
from common.attention.base import AttentionModel
from common.errors import ConfigError, DataError
from common.items import need_images
from common.secagg.identity import Identity
from simulations.experiment import Experiment
from simulations.finished import Step
from simulations.judging import Court, final_arrays, model_of, open_court
from simulations.results import Results
from simulations.trainer import training_folder

MODEL, ARTEFACT = "model.safetensors", "artefact.safetensors"
SIGNER = "coordinator"
GROUPS = ("model.", "task.")
PRIVATE = (
    "the run promises privacy, and the artefact's statistics would be measured on patients without noise. The released "
    "sums hold no law of classes and no confusion. The artefact says how to build the model alone: fasa cannot run"
)
FEW = "one source site trained: there is no null between sites, so the artefact holds no statistics and fasa cannot run"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: `note` says what the artefact lacks, or nothing."""

    folder: Path
    key: str
    artefact: str
    model: str
    adaptations: tuple[str, ...]
    note: str
    privacy: str


def export_run(run: Path, out: Path, key: Path, seed: int | None = None, step: Step = lambda text: None) -> Exported:
    """Write the federated model of a finished run and its artefact, signed.

    Statistics are measured on the validation images of the source sites, each site apart, as sums that are added.

    Args:
        run: Folder of a finished run.
        out: Folder to write; nothing in it is overwritten.
        key: The signer's private key; it is made where there is none.
        seed: One of the run's seeds, by default the first.
        step: Told what is being done.

    Raises:
        RunFolderError: The run is not finished, is a mixture of two, or its data are others now.
        ConfigError: No such seed, a run of bags, or files are there already.
    """
    results, experiment, court = open_court(run)
    need_images("`consilium export`", court.federation.image_size)
    chosen = experiment.study.seeds[0] if seed is None else seed
    if chosen not in experiment.study.seeds:
        raise ConfigError(f"seed {chosen} did not train. The run has {', '.join(map(str, experiment.study.seeds))}.")
    if found := [name for name in (MODEL, ARTEFACT) if (out / name).exists()]:
        raise ConfigError(f"{out / found[0]} exists. Give another --out; nothing is overwritten.")
    identity = Identity.read(key) if key.exists() else Identity.fresh(SIGNER)
    federation = court.federation
    arrays = final_arrays(training_folder(run, chosen, "federated"))
    model = model_of(arrays, experiment.config, court.task, federation.channels, federation.image_size)
    note = _lacks(experiment, court)
    step("measuring the source sites")
    source = source_of({}, court.task) if note else measured(court, model)
    artefact = describe(_card(results, experiment, court, chosen), model, model_arrays(model), source)
    if not key.exists():
        identity.write(key)
    write_arrays(out / MODEL, model_arrays(model), {})
    write_artefact(out / ARTEFACT, artefact, identity)
    fits = [name for name in ADAPTATIONS if _runs(name, model, source)]
    return Exported(
        out,
        identity.public.hex(),
        file_digest(out / ARTEFACT),
        artefact.model,
        tuple(fits),
        note,
        str(results.record["privacy"]),
    )


def measured(court: Court, model: AttentionModel) -> Source:
    """Measure what FASA needs on every source site's validation images, pass after pass, and add the sums.

    Sites that have no such images are left out.
    """
    sites = [court.data(site.name, "val") for site in court.federation.sites if site.role == "source"]
    sites = [data for data in sites if len(data) > 1]
    if not sites:
        raise DataError("no source site has validation images. The artefact is measured on them; give a site more.")
    source = source_of({}, court.task)
    for names in passes(ADAPTATIONS.load("fasa").needs):
        parts = [measure_sums(model, court.task, data, names, source) for data in sites]
        source = source_of(add_sums(parts), court.task, source)
    return source


def _lacks(experiment: Experiment, court: Court) -> str:
    if experiment.config.privacy.on:
        return PRIVATE
    return FEW if sum(site.role == "source" for site in court.federation.sites) < 2 else ""


def _runs(name: str, model: AttentionModel, source: Source) -> bool:
    method = ADAPTATIONS.load(name)
    return not method.unfit(model, source) and all(getattr(source, need) is not None for need in method.needs)


def _card(results: Results, experiment: Experiment, court: Court, seed: int) -> Card:
    flat, federation = experiment.config.flat(), court.federation
    return Card(
        settings={key: value for key, value in flat.items() if key.startswith(GROUPS)},
        classes=federation.classes,
        mask_classes=federation.mask_classes,
        channels=federation.channels,
        image_size=federation.image_size,
        method="federated",
        seed=seed,
        privacy=str(results.record["privacy"]),
        run=experiment.digest(),
        version=metadata.version("consilium-fl"),
    )
