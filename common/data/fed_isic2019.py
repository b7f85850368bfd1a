"""Fed-ISIC2019: dermoscopy from six centres, as FLamby's scripts leave it on disk."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.base import Dataset
from common.data.benchmark import PAGE, benchmark_folder, benchmark_table, fold_of_centre, translated
from common.data.folder import open_listed
from common.data.listing import Listing
from common.data.sidecar import Sidecar
from common.errors import DataError

TABLE = "train_test_split"
LESIONS = "ISIC_2019_Training_Metadata.csv"
IMAGES = "ISIC_2019_Training_Input_preprocessed"
CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
CENTRES = {
    "0": "BCN",
    "1": "vidir-molemax",
    "2": "vidir-modern",
    "3": "rosendahl",
    "4": "MSK",
    "5": "vienna-dias",
}
log = logging.getLogger(__name__)


def fed_isic2019(settings: DataSection) -> Dataset:
    """Open the folder that `data.path` names.

    The published division draws single images, so that a lesion with several may stand in train and test. Here the
    official test images stay, and training images of a lesion that is also tested are left out. `data.patient =
    "image"` takes the published division as it is and counts every image as a patient.

    Source: Ogier du Terrail et al. 2022, "FLamby", NeurIPS Datasets and Benchmarks.

    Raises:
        ConfigError: No path, or a class that is not known.
        DataError: A table, column or image is missing, or is not what docs/reference/benchmarks.md tells.
    """
    root = benchmark_folder(settings)
    manifest, table = benchmark_table(root, TABLE, ("image", "target", "center", "fold2"))
    split = fold_of_centre(TABLE, "fold2", table["fold2"], table["center"])
    by_lesion = settings.patient == "auto"
    patient = _lesions(root, table["image"]) if by_lesion else table["image"]
    table |= {
        "image": np.array([f"{IMAGES}/{name}.jpg" for name in table["image"].tolist()], dtype="U"),
        "patient": patient,
        "site": translated(TABLE, "center", table["center"], CENTRES),
        "label": table["target"],
        "split": split,
    }
    names = {"name": "fed-isic2019", "classes": list(CLASSES), "centres": list(CENTRES.values())}
    sidecar = Sidecar(TABLE, {**names, "licence": "CC BY-NC 4.0 (ISIC 2019, HAM10000)"})
    return open_listed(Listing(manifest, table, sidecar, keep=untorn(patient, split) if by_lesion else None), settings)


def untorn(patients: NDArray[np.str_], split: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Say which images stay so that nobody is trained on and tested: all of test, and train but for who is in test.

    Shapes: patients [N], split [N] of train and test -> bool [N].
    """
    train = split == "train"
    keep: NDArray[np.bool_] = ~train | ~np.isin(patients, patients[~train])
    log.info("fed-isic2019: %d of %d training images show a tested lesion; left out", (~keep).sum(), train.sum())
    return keep


def _lesions(root: Path, images: NDArray[np.str_]) -> NDArray[np.str_]:
    """Look up the lesion of each image in ISIC's own metadata.

    Raises:
        DataError: The table is not there, or does not know an image's lesion.
    """
    if not (root / LESIONS).is_file():
        raise DataError(
            f"data.path: {root} holds no {LESIONS}, which says which images are of one lesion. Put it there ({PAGE} "
            f"tells where to find it), or set data.patient=image to count every image as a patient."
        )
    _, table = benchmark_table(root, LESIONS, ("image",))
    if "lesion_id" not in table:
        raise DataError(
            f"{LESIONS}: there is no column 'lesion_id'. There are: {', '.join(table)}. Copy the file anew."
        )
    known = dict(zip(table["image"].tolist(), table["lesion_id"].tolist(), strict=True))
    found = [known.get(name, "") for name in images.tolist()]
    missing = sum(not lesion for lesion in found)
    if missing:
        raise DataError(
            f"{LESIONS}: {missing} of {len(found)} images of {TABLE} have no lesion. Every image needs one; copy both "
            f"files anew, or set data.patient=image."
        )
    return np.array(found, dtype="U")
