"""Opens a finished run to ask more of it: its results and the settings that they came from."""

from collections.abc import Callable
from pathlib import Path

from common.errors import RunFolderError
from simulations.experiment import Experiment
from simulations.results import Results, load_results
from simulations.run_folder import read_settings

Step = Callable[[str], None]
"""Told what a study is about to do, in words for the person who waits."""


def open_finished(run: Path) -> tuple[Results, Experiment]:
    """Read a run's results and settings.

    Raises:
        RunFolderError: The run is not finished, is damaged, or is a mixture of two.
    """
    results, experiment = load_results(run), read_settings(run)
    if results.record["config_digest"] != experiment.digest():
        raise RunFolderError(
            f"{run} mixes two runs: run.json and the settings differ. Give a folder of one run, whole."
        )
    return results, experiment
