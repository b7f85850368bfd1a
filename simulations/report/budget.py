"""What a run costs by its length: one line, and the epsilon that it may cost."""

from matplotlib.figure import Figure

from simulations.privacy_plan import Planned
from simulations.report.style import BLUE, VERMILION, WIDTH, styled


@styled
def draw_budget(found: Planned) -> Figure:
    """Draw epsilon against rounds at one noise; the dot is the run as it is set."""
    curve, epsilon = found.curve, found.allowed
    figure = Figure(figsize=(WIDTH * 0.62, 3.0), layout="constrained")
    axis = figure.subplots()
    axis.plot(
        [row["rounds"] for row in curve], [row["epsilon"] for row in curve], color=BLUE, marker="o", markersize=3.5
    )
    axis.axhline(epsilon, color=VERMILION, linewidth=1, linestyle="--")
    axis.annotate(
        f"allowed: {epsilon:g}",
        (curve[0]["rounds"], epsilon),
        xytext=(0, 4),
        textcoords="offset points",
        color=VERMILION,
    )
    axis.plot([found.rounds], [found.epsilon], "D", color=VERMILION, markersize=6)
    axis.set_xlabel("rounds")
    axis.set_ylabel(f"epsilon of a patient, delta {found.delta:g}")
    axis.set_ylim(bottom=0)
    axis.set_title("What training costs, at the noise that pays for the run")
    return figure
