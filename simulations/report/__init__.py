"""FIGURES: name to drawing function, `Results -> matplotlib Figure`, one file per figure."""

from common.registry import Registry

FIGURES = Registry(
    "figure",
    {
        "headline": "simulations.report.headline:draw",
        "differences": "simulations.report.differences:draw",
        "sites": "simulations.report.sites:draw",
        "learning": "simulations.report.learning:draw",
        "matrix": "simulations.report.matrix:draw",
        "overlays": "simulations.report.overlays:draw",
        "add": "simulations.report.add:draw",
        "distances": "simulations.report.distances:draw",
        "health": "simulations.report.health:draw",
        "calibration": "simulations.report.calibration:draw",
        "robustness": "simulations.report.robustness:draw",
    },
)
