"""The researcher's commands. Heavy imports stand inside each, so that `--help` answers at once."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from common.commands import answering, command_line
from common.errors import ConfigError
from simulations.adaptation.command import adaptation
from simulations.drift_command import drift
from simulations.export_command import export
from simulations.privacy_commands import commands as privacy
from simulations.stepping import stepping

app = command_line(
    "consilium",
    "Federated learning of attention models: many hospitals on one machine, judged on hospitals never seen.",
)

study = typer.Typer(no_args_is_help=True, help="Ask a finished run a question that its report does not answer.")
app.add_typer(study, name="study")
study.command()(adaptation)
study.command()(drift)
app.command()(export)
app.add_typer(privacy, name="privacy")

Json = Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout; everything else to stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log every step, and each simulated site's own errors.")]


@app.command()
@answering
def run(
    experiment: Annotated[str, typer.Argument(help="A TOML file, or the name of an embedded experiment.")] = "phantom",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: key=value. May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/NAME-TIME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if it has begun.")] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Run an experiment: train, judge against the baselines, write the report.

    Examples: `consilium run` · `consilium run skin.toml --set rounds=30 --set seeds=1,2,3 --out runs/skin`
    """
    from simulations.experiment import load_experiment
    from simulations.session import conduct

    if resume and out is None:
        raise ConfigError("--resume is given without --out. Say which run to go on with: consilium resume RUN")
    _log(verbose)
    conduct(load_experiment(experiment, changes or []), out, resume, as_json)


@app.command()
@answering
def resume(
    run: Annotated[Path, typer.Argument(help="Run folder.")], verbose: Verbose = False, as_json: Json = False
) -> None:
    """Go on with a run that was stopped or killed; the result is the same as without the stop."""
    from simulations.run_folder import read_settings
    from simulations.session import conduct

    _log(verbose)
    conduct(read_settings(run), run, True, as_json)


@app.command()
@answering
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    archive: Annotated[Path, typer.Option(help="A .npz archive, with its .json beside it, that the run has not seen.")],
    method: Annotated[
        str, typer.Option(help="Which training to judge: federated, pooled, local/SITE, without/SITE.")
    ] = "federated",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="How to read the archive: data.KEY=VALUE. May be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge a trained run on images it has never seen (external validation), site by site.

    The archive is read as the run's own data were; `--set data.patient=subject` says where it differs.
    """
    from simulations.external import evaluate_archive
    from simulations.session import show_external

    show_external(evaluate_archive(run, archive, method, changes or []), as_json)


@app.command()
@answering
def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    sites: Annotated[list[str] | None, typer.Option("--site", help="A site; may be repeated. By default all.")] = None,
    method: Annotated[
        str, typer.Option(help="Which training to explain: federated, pooled, local/SITE, without/SITE.")
    ] = "federated",
    seed: Annotated[int | None, typer.Option(help="One of the run's seeds; by default the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of what is found; by default RUN/explain.")] = None,
    as_json: Json = False,
) -> None:
    """Show why a model answers as it does: an atlas of cases and mean maps, with every explanation put to the test.

    Raw attention, gates, rollout, relevance, Grad-CAM and a hybrid, as far as they fit the model, held against the
    experts' outlines and against maps that know no image. Writes atlas.html, which holds images, and CSV files.
    """
    from simulations.explain import explain_run
    from simulations.explain_pages import show_explained

    with stepping(as_json) as step:
        found = explain_run(run, sites or [], method, seed, step)
    show_explained(found, out or run / "explain", as_json)


@study.command()
@answering
def shift(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Folder of what is found; by default RUN/shift.")] = None,
    as_json: Json = False,
) -> None:
    """Say how differently the federated model looks at the sites, whether by chance, and which attention moved.

    Attention Distribution Distances of every pair of sites on their test patients, and the Fréchet distance of
    features as a baseline; and for every site whether it would have raised an alarm, had it been new. A run with
    local models also says how the distance goes with the loss of accuracy, as `study drop` does. Writes pairs.csv,
    blocks.csv, watch.csv, shift.png, blocks.png and, with local models, relations.csv and drop.png.
    """
    from simulations.drop import relation
    from simulations.shift import study_shift
    from simulations.shift_pages import show_shift

    with stepping(as_json) as step:
        found, related = study_shift(run, step), relation(run, step)
    show_shift(found, related, out or run / "shift", as_json)


@study.command()
@answering
def drop(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run with the protocol local.")],
    out: Annotated[Path | None, typer.Option(help="Folder of what is found; by default RUN/drop.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether the distance of two sites tells how much a model of one loses at the other.

    Each site's own model is judged at every other site. Its loss of the primary metric is held against attention
    distances and against baselines: Fréchet distance of features, confidence, entropy, average thresholded confidence.
    """
    from simulations.drop import study_drop
    from simulations.drop_pages import show_drop

    with stepping(as_json) as step:
        found = study_drop(run, step)
    show_drop(found, out or run / "drop", as_json)


@study.command()
@answering
def corruptions(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    modality: Annotated[str, typer.Option(help="mri, ct, xray, ultrasound, dermoscopy, fundus or microscopy.")],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A corruption of the modality; may be repeated. By default all.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Another run on the same data and seeds, for the corruption error against it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of what is found; by default RUN/corruptions.")] = None,
    as_json: Json = False,
) -> None:
    """Say what acquisition would do to the federated model: every corruption of a modality in five severities.

    Source and held-out sites apart, with intervals over patients and seeds: the loss of the primary metric, the share
    of what lies above chance that is kept, how far attention stayed where it was, and the images where attention moved
    and the answer did not, or the reverse. Writes rows.csv, summary.csv, roles.csv, robustness.png, curves.png and
    study.json, which `consilium report RUN` then shows.

    Example: `consilium study corruptions runs/RUN --modality ct --reference runs/fedavg`
    """
    from simulations.robustness import study_corruptions
    from simulations.robustness_pages import show_robustness

    with stepping(as_json) as step:
        found = study_corruptions(run, modality, only or [], reference, step)
    show_robustness(found, out or run / "corruptions", as_json)


@study.command()
@answering
def generalise(
    benchmark: Annotated[str, typer.Argument(help="A TOML file with [methods.NAME] tables, or an embedded benchmark.")],
    out: Annotated[Path, typer.Option(help="Folder of the benchmark; what it holds already is not done again.")],
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Only this method, beside the first; may be repeated.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of all: key=value. May be repeated.")
    ] = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Say which method works at a hospital that it has never seen: every site is left out once.

    Local only, pooled, ensemble and best single site are always compared too. Stopped, it goes on where it was; methods
    that are added to the file later are added to the folder. Writes tables/*.csv, benchmark.json and forest.png.

    Example: `consilium study generalise phantom-sites --out runs/phantom-sites --set seeds=1,2,3`
    """
    from simulations.generalise.benchmark import load_benchmark
    from simulations.generalise.conduct import Contest
    from simulations.generalise.pages import conduct as conduct_benchmark

    _log(verbose, "ERROR")  # hundreds of trainings: each one's warnings stand in its own history
    conduct_benchmark(Contest(load_benchmark(benchmark, changes or [], methods or [])), out, as_json)


@study.command()
@answering
def compare(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    baseline: Annotated[Path, typer.Argument(help="Folder of another, on the same data with the same seeds.")],
    protocol: Annotated[str, typer.Option(help="What to compare: see `consilium list protocols`.")] = "federated",
    as_json: Json = False,
) -> None:
    """Say whether a run is better than another, on the same patients, with intervals.

    Writes RUN/compare/BASELINE.csv. `consilium report RUN BASELINE` shows both side by side, without differences.
    """
    from simulations.paired import paired_difference
    from simulations.paired_pages import show_paired

    show_paired(paired_difference(run, baseline, protocol), run, baseline, as_json)


@app.command()
@answering
def report(
    runs: Annotated[list[Path], typer.Argument(help="One or more run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of a comparison of several; by default runs/comparison.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run again, or compare several runs on one page."""
    from simulations.report.build import build_report, compare_report
    from simulations.report.sections import privacy_text
    from simulations.results import load_results

    if out is not None and len(runs) == 1:
        raise ConfigError(
            f"--out is given with one run. It is for a comparison of several; the report of one lies in {runs[0]}."
        )
    results = [load_results(run) for run in runs]
    if len(runs) == 1:
        page = build_report(results[0], runs[0])
    else:
        page = compare_report(results, out or Path("runs/comparison"))
    mechanisms = sorted({result.record["privacy"] for result in results})
    typer.echo("\n".join(map(privacy_text, mechanisms)), err=True)
    typer.echo(json.dumps({"report": str(page), "privacy": ", ".join(mechanisms)}) if as_json else str(page))


@app.command()
@answering
def settings(
    key: Annotated[str, typer.Argument(help="A setting, or the beginning of one.")] = "", as_json: Json = False
) -> None:
    """List every setting: default, allowed values, meaning."""
    from simulations.catalogue import print_settings

    print_settings(key, as_json)


@app.command("list")
@answering
def list_(
    family: Annotated[str, typer.Argument(help="models, attention, datasets, tasks, metrics, strategies, …")] = "",
    as_json: Json = False,
) -> None:
    """List the parts of a family, or all families; also the embedded experiments."""
    from simulations.catalogue import print_parts

    print_parts(family, as_json)


def _log(verbose: bool, level: str = "WARNING") -> None:
    """Log warnings; all with `verbose`, for on this machine the sites are the user's own."""
    from common.logs import set_up

    set_up("DEBUG" if verbose else level)


def main() -> None:
    """Run the command line."""
    # Before torch is loaded: workers are forked, and a process that has started threads must not be.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    app()
