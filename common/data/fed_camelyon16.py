"""Fed-Camelyon16: slides from two hospitals as bags of tiles' features, as FLamby's scripts leave them on disk."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.bags import read_bags
from common.data.base import Dataset
from common.data.benchmark import PAGE, benchmark_folder, benchmark_table, translated
from common.data.choose import choose_classes
from common.errors import DataError

TABLE = "metadata.csv"
CLASSES = ("normal", "tumour")
CENTRES = ("RUMC", "UMCU")
KINDS = {"normal": "0", "tumor": "1"}
"""What the label must be of a slide so named; slides named `test` have either."""


def fed_camelyon16(settings: DataSection) -> Dataset:
    """Open the folder that `data.path` names. A slide is a patient, and `data.max-instances` of its tiles are kept.

    Source: Ogier du Terrail et al. 2022, "FLamby", NeurIPS Datasets and Benchmarks.

    Raises:
        ConfigError: No path, or a class that is not known.
        DataError: A table, column or file is missing, or is not what docs/reference/benchmarks.md tells.
    """
    root = benchmark_folder(settings)
    _, table = benchmark_table(root, TABLE, ("label", "hospital_corrected", "slide_name"))
    slides = np.array([name.partition(".")[0].lower() for name in table["slide_name"].tolist()], dtype="U")
    labels = translated(TABLE, "label", table["label"], {"0": "0", "1": "1"}).astype(np.int64)
    sites = translated(TABLE, "hospital_corrected", table["hospital_corrected"], {"0.0": "0", "1.0": "1"})
    splits = _splits(slides, table["label"])
    kept, names = np.arange(len(slides)), tuple[str, ...](CLASSES)
    if settings.classes.strip():
        kept, chosen, names = choose_classes(TABLE, labels, CLASSES, settings.classes)
        labels = np.asarray(chosen, dtype=np.int64)
    files = _files(root, table["slide_name"], kept)
    return Dataset(
        name="fed-camelyon16",
        images=read_bags(TABLE, (kept + 1).tolist(), files, settings.max_instances),
        labels=labels,
        patients=slides[kept],
        sites=sites[kept].astype(np.int64),
        site_names=CENTRES,
        splits=splits[kept],
        classes=names,
        licence="CC0 (Camelyon16)",
        kind="bags",
    ).check()


def _splits(slides: NDArray[np.str_], labels: NDArray[np.str_]) -> NDArray[np.int8]:
    """Take train and test out of the names: normal_001, tumor_001, test_001.

    Raises:
        DataError: Another name, one that says another label, or a slide in two rows.
    """
    kinds = [name.partition("_")[0] for name in slides.tolist()]
    for row, (kind, label) in enumerate(zip(kinds, labels.tolist(), strict=True), 1):
        if kind != "test" and KINDS.get(kind) != label:
            raise DataError(
                f"{TABLE}: the slide of row {row} is called {kind!r} and its label is {label}. Allowed are normal with "
                f"0, tumor with 1, and test. Copy the file anew."
            )
    if len(set(slides.tolist())) < len(slides):
        raise DataError(f"{TABLE}: slides stand in two rows. Allowed is one row per slide; copy the file anew.")
    return np.array([2 if kind == "test" else 0 for kind in kinds], dtype=np.int8)


def _files(root: Path, names: NDArray[np.str_], rows: NDArray[np.int64]) -> list[Path]:
    """Find each slide's features, upper or lower case: Camelyon16 was published with both.

    Raises:
        DataError: Some are not there.
    """
    there = {path.name.lower(): path for path in root.glob("*.npy")}
    wanted = [f"{name.lower()}.npy" for name in names[rows].tolist()]
    missing = [row for row, name in zip(rows.tolist(), wanted, strict=True) if name not in there]
    if missing:
        raise DataError(
            f"{TABLE}: {len(missing)} of {len(rows)} slides have no `.npy` in {root}, the first in row "
            f"{missing[0] + 1}. Extract their features ({PAGE} tells how), or take their rows out of the table."
        )
    return [there[name] for name in wanted]
