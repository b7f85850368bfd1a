"""`consilium study drift`. Heavy imports stand inside, so that `--help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from common.commands import answering
from common.errors import ConfigError
from simulations.stepping import stepping


@answering
def drift(  # noqa: PLR0913 - every option is one
    run: Annotated[Path, typer.Argument(help="Folder of a finished run with two source sites or more.")],
    modality: Annotated[str, typer.Option(help="mri, ct, xray, ultrasound, dermoscopy, fundus or microscopy.")],
    archive: Annotated[
        Path | None, typer.Option(help="A .npz archive of sites that the run has not seen, to be named too.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="How to read the archive: data.KEY=VALUE. May be repeated.")
    ] = None,
    atlas: Annotated[
        Path | None, typer.Option(help="A finished atlas of the same model, in place of learning one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of what is found; by default RUN/drift.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout; everything else to stderr.")
    ] = False,
) -> None:
    """Say what a new site's images have been through: "resembles motion blur, severity 3", or none of these.

    Learns on the source sites which way each corruption moves the attention signature (the drift atlas), asks unseen
    patients whether it can be trusted, and holds the held-out sites and an archive's against it. Writes
    atlas.safetensors, sites.csv, trials.csv, shares.csv, alarms.csv, alike.png and confusion.png.

    Example: `consilium study drift runs/RUN --modality mri --archive new-hospital.npz`
    """
    from simulations.drift import New, study_drift
    from simulations.drift_pages import show_drift

    if changes and archive is None:
        raise ConfigError("--set is given without --archive. It says how an archive is read; name the archive.")
    new = New(archive, tuple(changes or ())) if archive else None
    with stepping(as_json) as step:
        found = study_drift(run, modality, atlas, new, step)
    show_drift(found, out or run / "drift", as_json)
