"""Build the report of a run: figures as files and one page."""

from importlib import import_module
from pathlib import Path

from simulations.report import FIGURES
from simulations.report.about import files, how_run
from simulations.report.compare import compare_report
from simulations.report.page import Section, page
from simulations.report.sections import figure, header, in_words, result_tables
from simulations.report.svg import png_bytes, svg_text
from simulations.results import Results, write_whole, writing

__all__ = ["build_report", "compare_report"]


def build_report(results: Results, folder: Path) -> Path:
    """Write `figures/*.svg`, `figures/*.png` and `report.html` into the run folder; give the page's path.

    Raises:
        RunFolderError: The folder cannot be written.
    """
    sections = [in_words(results), result_tables(results)]
    shown = [name for name in FIGURES if has_section(results, name)]
    sections += [_drawn(results, name, folder, position) for position, name in enumerate(shown, start=1)]
    sections += [how_run(results), files(results)]
    record = results.record
    code = record["code"]
    footer = (
        f"Consilium {code.get('version', '')}. Settings {record['config_digest'][:12]}, data "
        f"{record['data']['digest'][:12]}, code {code.get('digest', '')[:12]}. The page stands alone. A research "
        f"result, not for diagnosis."
    )
    path = folder / "report.html"
    with writing(folder):
        write_whole(path, page(record["name"], header(results), sections, footer).encode())
    return path


def has_section(results: Results, name: str) -> bool:
    """Whether a figure stands in the page: all do, and say what is missing, but those that few runs could fill.

    Of a study that is made after a run, it stands there once that has been made.
    """
    module = import_module(FIGURES[name].partition(":")[0])
    if study := getattr(module, "STUDY", ""):
        return study in results.studies
    return not getattr(module, "ONLY_WITH_ROWS", False) or bool(results.rows(module.TABLE))


def _drawn(results: Results, name: str, folder: Path, position: int) -> Section:
    drawn = FIGURES.load(name)(results)
    svg = svg_text(drawn)
    with writing(folder):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        write_whole(folder / "figures" / f"{name}.svg", svg.encode())
        write_whole(folder / "figures" / f"{name}.png", png_bytes(drawn))
    return figure(results, name, svg, position)
