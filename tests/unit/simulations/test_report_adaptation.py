"""The picture of gain and harm: its dots and intervals are the table, what is undefined is said, maps are in place."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from simulations.adaptation.looks import Looks
from simulations.report.adaptation import draw_gains, draw_looks


def gain(method: str, stream: str, value: float, half: float = 0.01) -> dict[str, Any]:
    head = {"method": method, "stream": stream, "phase": "post", "score": "balanced_accuracy"}
    return {**head, "gain": value, "low": value - half, "high": value + half}


ROWS = [
    gain("one", "iid", 0.02),
    gain("two", "iid", -0.05),
    gain("one", "no-shift", 0.0),
    gain("two", "no-shift", math.nan),
]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_dots_are_the_tables_points_and_lines_its_intervals() -> None:
    figure = draw_gains(ROWS, [{"method": "two", "stream": "iid", "gain": -0.07}], ["one", "two"])
    dots = {str(line.get_label()): line for axis in figure.axes for line in axis.lines if "|" in str(line.get_label())}
    assert set(dots) == {"iid|one", "iid|two", "no-shift|one"}
    for row in ROWS[:3]:
        dot = dots[f"{row['stream']}|{row['method']}"]
        assert list(dot.get_xdata()) == [100 * row["gain"]]
        assert list(dot.get_ydata()) == [["one", "two"].index(row["method"])]
    ends = [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert [100 * ROWS[1]["low"], 100 * ROWS[1]["high"]] in ends
    assert [-7.000000000000001] in ends, "single conditions are there too"
    assert sum("undefined" in text for text in texts(figure)) == 1
    colours = {dots["iid|one"].get_color(), dots["iid|two"].get_color(), dots["no-shift|one"].get_color()}
    assert len(colours) == 3, "help, harm and neither look different"


def test_nothing_defined_says_so() -> None:
    assert any("No gain" in text for text in texts(draw_gains([gain("one", "iid", math.nan)], [], ["one"])))


def test_maps_stand_under_their_methods_and_beside_their_images() -> None:
    flat = np.full((2, 8, 8), 1 / 64)
    found = Looks(
        title="made",
        captions=["lesion", "none"],
        images=[np.zeros((8, 8), np.uint8)] * 2,
        maps={"none": (flat, flat[0]), "tent": (flat, flat[0])},
        rows=[],
    )
    figure = draw_looks(found)
    assert len(figure.axes) == 9
    assert [axis.get_title(loc="left") for axis in figure.axes[1:3]] == ["none", "tent"]
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["lesion", "none", "mean over images"]
