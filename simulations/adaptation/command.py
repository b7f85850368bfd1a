"""`consilium study adaptation`. Heavy imports stand inside, so that `--help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from common.commands import answering
from simulations.stepping import stepping


@answering
def adaptation(  # noqa: PLR0913 - every option is one
    run: Annotated[Path, typer.Argument(help="Folder of a finished run of a classification task.")],
    held_out: Annotated[
        str, typer.Option(help="Sites, comma-separated; by default all that a training of the run never saw.")
    ] = "",
    methods: Annotated[
        str, typer.Option(help="Methods, comma-separated; by default all. Settings follow: tent:learning-rate=0.01.")
    ] = "",
    streams: Annotated[
        str, typer.Option(help="Streams, comma-separated; CORRUPTION@SEVERITY is one. By default all.")
    ] = "",
    batches: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = "1,8,32,64",
    modality: Annotated[
        str, typer.Option(help="For corruptions: mri, ct, xray, ultrasound, dermoscopy, fundus or microscopy.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of what is found; by default RUN/adaptation.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout; everything else to stderr.")
    ] = False,
) -> None:
    """Say which test-time adaptation helps or harms the run's final model, on which streams of a new site's images.

    Every method on every stream: judged while the stream came, and afterwards on patients who were not in it, against
    no adaptation, with intervals over patients. Rows are appended as they end; a stopped study goes on there.
    Writes rows.jsonl, rows.csv, conditions.csv, summary.csv, gains.csv, safety.csv, attention.csv and pictures.

    Example: `consilium study adaptation runs/RUN --methods tent,fasa --streams no-shift,iid --batches 8,64`
    """
    from simulations.adaptation.looks import looks
    from simulations.adaptation.pages import show_adaptation
    from simulations.adaptation.study import shown_cell, study_adaptation, wished

    with stepping(as_json) as step:
        found = study_adaptation(run, wished(methods, streams, batches, held_out, modality), out, step)
        step("looking at attention before and after")
        looked = looks(found.bench, shown_cell(found), found.wish.methods, found.seeds[0])
    show_adaptation(found, looked, out or run / "adaptation", as_json)
