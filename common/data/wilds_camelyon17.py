"""Camelyon17 as WILDS lays it out: patches of lymph node from five hospitals, with tumour or without."""

import numpy as np

from common.config import DataSection
from common.data.base import Dataset
from common.data.benchmark import benchmark_folder, benchmark_table, translated
from common.data.folder import open_listed
from common.data.listing import Listing
from common.data.sidecar import Sidecar

TABLE = "metadata.csv"
HOSPITALS = {str(index): f"hospital-{index}" for index in range(5)}
PLACE = ("patient", "node", "x_coord", "y_coord")


def wilds_camelyon17(settings: DataSection) -> Dataset:
    """Open the folder that `data.path` names, `camelyon17_v1.0`.

    The official division is by hospital: 1 is for validation and 2 for the test, and `data.held-out` says so. The
    column `split` is not taken: it draws single patches of one slide into train and in-distribution validation.

    Source: Koh et al. 2021, "WILDS: A Benchmark of in-the-Wild Distribution Shifts", ICML.

    Raises:
        ConfigError: No path.
        DataError: A table, column or patch is missing, or is not what docs/reference/benchmarks.md tells.
    """
    root = benchmark_folder(settings)
    manifest, table = benchmark_table(root, TABLE, (*PLACE, "tumor", "center"))
    places = zip(*(table[name].tolist() for name in PLACE), strict=True)
    slides = ((f"patient_{patient}_node_{node}", x, y) for patient, node, x, y in places)
    listed = {
        "image": np.array([f"patches/{slide}/patch_{slide}_x_{x}_y_{y}.png" for slide, x, y in slides], dtype="U"),
        "site": translated(TABLE, "center", table["center"], HOSPITALS),
        "label": table["tumor"],
    }
    table = {name: cells for name, cells in table.items() if name != "split"} | listed
    sidecar = Sidecar(
        TABLE,
        {
            "name": "wilds-camelyon17",
            "classes": ["normal", "tumour"],
            "centres": list(HOSPITALS.values()),
            "licence": "CC0 (Camelyon17, WILDS)",
        },
    )
    return open_listed(Listing(manifest, table, sidecar), settings)
