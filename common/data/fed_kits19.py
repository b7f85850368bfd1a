"""Fed-KiTS19: abdominal CT with kidneys and tumours from six groups of hospitals, as the challenge lays it out."""

import numpy as np

from common.config import DataSection
from common.data.base import Dataset
from common.data.benchmark import benchmark_folder, benchmark_table, fold_of_centre, translated
from common.data.folder import open_listed
from common.data.listing import Listing
from common.data.sidecar import Sidecar

TABLE = "thresholded_sites.csv"
CENTRES = {str(index): f"site-{index}" for index in range(6)}
WINDOW = (-79.0, 304.0)
"""Hounsfield units: the 0.5 and 99.5 percentiles of kidneys and tumours in the training scans.

Source: Isensee and Maier-Hein 2019, "An attempt at beating the 3D U-Net", preprocessing.
"""


def fed_kits19(settings: DataSection) -> Dataset:
    """Open the folder that `data.path` names; every axial slice of a scan is an image of its patient.

    Source: Ogier du Terrail et al. 2022, "FLamby"; Heller et al. 2019, "The KiTS19 Challenge Data".

    Raises:
        ConfigError: No path.
        DataError: A table, column or scan is missing, or is not what docs/reference/benchmarks.md tells.
    """
    root = benchmark_folder(settings)
    manifest, table = benchmark_table(root, TABLE, ("case_ids", "site_ids", "train_test_split_silo"))
    cases = table["case_ids"].tolist()
    table |= {
        "image": np.array([f"data/{case}/imaging.nii.gz" for case in cases], dtype="U"),
        "mask": np.array([f"data/{case}/segmentation.nii.gz" for case in cases], dtype="U"),
        "patient": table["case_ids"],
        "site": translated(TABLE, "site_ids", table["site_ids"], CENTRES),
        "split": fold_of_centre(TABLE, "train_test_split_silo", table["train_test_split_silo"], table["site_ids"]),
    }
    sidecar = Sidecar(
        TABLE,
        {
            "name": "fed-kits19",
            "centres": list(CENTRES.values()),
            "mask_classes": ["background", "kidney", "tumour"],
            "licence": "CC BY-NC-SA 4.0 (KiTS19)",
        },
    )
    return open_listed(Listing(manifest, table, sidecar, WINDOW), settings)
