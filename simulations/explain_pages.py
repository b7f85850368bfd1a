"""What `consilium explain` shows: one page with pictures and tables, CSV files, and a table in the terminal."""

import math
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from simulations.explain import Explained
from simulations.explain_site import Row
from simulations.findings import print_json, write_table
from simulations.report.atlas import draw_gallery, draw_means
from simulations.report.markup import Html, join, table, tag
from simulations.report.page import Section, page
from simulations.report.sections import privacy, privacy_text
from simulations.report.svg import png_bytes
from simulations.results import write_whole, writing

MEASURES = {
    "pointing": "pointing game",
    "energy": "energy inside",
    "lift": "lift",
    "iou": "IoU of the top",
    "auprc": "AUPRC",
}
TESTS = {
    "net_blur": "insertion − deletion, blurred",
    "random_blur": "random order",
    "net_even": "insertion − deletion, even",
    "random_even": "random order, even",
    "stable": "under noise",
    "after_head": "head lost",
    "after_stage": "last stage lost too",
    "after_all": "all lost",
}
AGREE = (
    "Maps explain the expert's answer. Pointing: the brightest pixel lies in the lesion, or within 15 pixels at 224. "
    "Lift: share of the map inside over the lesion's share of the image; 1 is chance. AUPRC: chance is the lesion's "
    "share. Uniform, centre and mean maps know nothing of the image: only what beats them tells of it. Mean over "
    "patients with 95 % intervals; images without a lesion do not count."
)
TRY = (
    "Insertion − deletion: how much faster the answer rises with the map's pixels than it falls without them, beside "
    "random orders. Under noise: Spearman between maps of the same image under 2 % noise, 1 is stable. Lost: Spearman "
    "with the map before, once the weights of the head, the last stage, everything are drawn anew; a map that is still "
    "alike (above 0.5 after the last stage) does not depend on what was learnt."
)
MATTER = (
    "Mean change of the probability when every attention map is replaced by an even one, or its places are shuffled. "
    "Where neither moves it by more than 0.01, attention is no explanation of this model."
)


def show_explained(found: Explained, out: Path, as_json: bool) -> None:
    """Write the page, its pictures and tables under `out`, and print what was found.

    Raises:
        RunFolderError: The folder cannot be written.
    """
    tables = {"agreement": found.agreement, "tests": found.tests, "attention": found.attention}
    for name, rows in tables.items():
        if rows:
            write_table(out / f"{name}.csv", rows)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        pictures = _pictures(found)
        for name, content in pictures.items():
            write_whole(out / f"{name}.png", content)
        write_whole(out / "atlas.html", _page(found, pictures).encode())
    if as_json:
        head = {"run": str(found.run), "out": str(out), "privacy": found.privacy, "method": found.method}
        sites = [atlas.site for atlas in found.atlas]
        known = {"explanations": list(found.explanations), "skipped": found.skipped, "sites": sites}
        print_json({**head, "seed": found.seed, **known, **tables})
        return
    _print(found, out)


def _pictures(found: Explained) -> dict[str, bytes]:
    gallery = {f"cases-{place + 1}": png_bytes(draw_gallery(atlas)) for place, atlas in enumerate(found.atlas)}
    return gallery | {f"mean-{name}": png_bytes(draw_means(found, name)) for name in found.explanations}


def _page(found: Explained, pictures: dict[str, bytes]) -> str:
    title = f"Why it answers so: {found.run.resolve().name}"
    told = f"Training {found.method}, seed {found.seed}. Test images, drawn by lot, those with a finding first."
    skipped = [tag("p", f"Not shown: {name}. {reason}", class_="note") for name, reason in found.skipped.items()]
    header = tag("header", tag("h1", title), tag("p", told, class_="byline"), privacy(found.privacy), *skipped)
    sections = [
        Section(f"cases-{place + 1}", f"Cases of {atlas.site}", _picture(pictures[f"cases-{place + 1}"], CASES_ALT))
        for place, atlas in enumerate(found.atlas)
    ]
    means = [
        join([tag("h3", name), _picture(pictures[f"mean-{name}"], f"Mean map of {name} for each site and class.")])
        for name in found.explanations
    ]
    sections.append(Section("means", "Mean map per class and site", join(means)))
    if found.agreement:
        sections.append(Section("agreement", "Agreement with the experts' outlines", _agreement(found)))
    sections.append(Section("tests", "Are the maps worth anything?", _tests(found)))
    footer = "Consilium. This page stands alone and holds images: it stays where they may lie. Not for diagnosis."
    return page(title, header, sections, footer)


CASES_ALT = "One row per test image: the image with the expert's outline, then each explanation over it."


def _picture(content: bytes, alt: str) -> Html:
    source = f"data:image/png;base64,{b64encode(content).decode()}"
    return tag("div", tag("img", src=source, alt=alt, style="max-width: 100%"), class_="scroll", tabindex="0")


def _agreement(found: Explained) -> Html:
    rows = [[f"{site} · {name}", *cells] for (site, name), cells in _grouped(found.agreement).items()]
    return join([tag("p", AGREE, class_="note"), table(["site · map", *MEASURES.values(), "patients"], rows)])


def _grouped(agreement: Iterable[Row]) -> dict[tuple[str, str], list[object]]:
    """Give one row of cells for each site and map, all sizes of lesion together."""
    found: dict[tuple[str, str], list[object]] = {}
    patients: dict[tuple[str, str], int] = {}
    for row in agreement:
        if row["lesions"] == "all":
            key = (row["site"], row["explanation"])
            found.setdefault(key, []).append(f"{_number(row['value'])} ({_number(row['low'])}–{_number(row['high'])})")
            patients[key] = row["patients"]
    return {key: [*cells, patients[key]] for key, cells in found.items()}


def _tests(found: Explained) -> Html:
    rows: list[list[object]] = [
        [f"{row['site']} · {row['explanation']}", *(_number(row[key]) for key in TESTS), _verdict(row)]
        for row in found.tests
    ]
    parts = [tag("p", TRY, class_="note"), table(["site · map", *TESTS.values(), ""], rows)]
    if found.attention:
        matter: list[list[object]] = [
            [
                row["site"],
                _number(row["uniform"]),
                _number(row["permuted"]),
                "no explanation here" if row["idle"] else "",
            ]
            for row in found.attention
        ]
        parts += [tag("p", MATTER, class_="note"), table(["site", "even", "shuffled", ""], matter)]
    return join(parts)


def _verdict(row: Row) -> str:
    return "does not depend on the weights" if row["insensitive"] else ""


def _print(found: Explained, out: Path) -> None:
    console = Console()
    _print_agreement(found, console)
    for row in found.tests:
        if row["insensitive"]:
            console.print(f"{row['site']}: {row['explanation']} does not depend on the weights.", style="bold")
    for row in found.attention:
        if row["idle"]:
            console.print(f"{row['site']}: attention changes no answer; it is no explanation here.", style="bold")
    for name, reason in found.skipped.items():
        console.print(f"Not shown: {name}. {reason}", style="dim", soft_wrap=True)
    console.print(privacy_text(found.privacy), style="bold")
    console.print(str(out / "atlas.html"), soft_wrap=True)


def _print_agreement(found: Explained, console: Console) -> None:
    if found.agreement:
        shown = Table(title=f"Agreement with the experts' outlines, {found.method}, seed {found.seed}", box=None)
        for name in ("site", "map", *MEASURES.values(), "patients"):
            shown.add_column(name, justify="left" if name in ("site", "map") else "right", overflow="fold")
        for (site, name), cells in _grouped(found.agreement).items():
            shown.add_row(site, name, *(str(cell) for cell in cells))
        console.print(shown)
    else:
        console.print("The data have no masks: nothing can be said of agreement.")


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"
