"""Fed-IXI: T1 brain MRI with brain masks from three London hospitals, as IXI Tiny and FLamby lay it out."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.base import Dataset
from common.data.benchmark import benchmark_folder, benchmark_table, translated
from common.data.folder import open_listed
from common.data.listing import Listing
from common.data.sidecar import Sidecar
from common.errors import DataError

TABLE = "metadata_tiny.csv"
SUBJECTS = "IXI_sample"
CENTRES = {"0": "Guys", "1": "HH", "2": "IOP"}
SUBJECT = re.compile(r"IXI(\d{3})-(Guys|HH|IOP)-\d+")


def fed_ixi(settings: DataSection) -> Dataset:
    """Open the folder that `data.path` names; every axial slice of a volume is an image of its subject.

    Source: Ogier du Terrail et al. 2022, "FLamby"; Pérez-García et al. 2021, "TorchIO" (IXI Tiny).

    Raises:
        ConfigError: No path.
        DataError: A table, column or volume is missing, or is not what docs/reference/benchmarks.md tells.
    """
    root = benchmark_folder(settings)
    manifest, table = benchmark_table(root, TABLE, ("Patient ID", "Manufacturer", "Split"))
    site = translated(TABLE, "Manufacturer", table["Manufacturer"], CENTRES)
    folders = _folders(root, table["Patient ID"], site)
    table |= {
        "image": np.array([_volume(root, name, "T1") for name in folders], dtype="U"),
        "mask": np.array([_volume(root, name, "label") for name in folders], dtype="U"),
        "patient": table["Patient ID"],
        "site": site,
        "split": translated(TABLE, "Split", table["Split"], {"train": "train", "test": "test"}),
    }
    sidecar = Sidecar(
        TABLE,
        {
            "name": "fed-ixi",
            "centres": list(CENTRES.values()),
            "mask_classes": ["background", "brain"],
            "licence": "CC BY-SA 3.0 (IXI)",
        },
    )
    return open_listed(Listing(manifest, table, sidecar), settings)


def _folders(root: Path, subjects: NDArray[np.str_], sites: NDArray[np.str_]) -> list[str]:
    """Find each subject's folder, whose name also tells the hospital.

    Raises:
        DataError: None, several, or one of another hospital; or folders that the table does not know.
    """
    names = [each.name for each in (root / SUBJECTS).glob("IXI*") if each.is_dir()]
    found = {match.group(1): (name, match.group(2)) for name in sorted(names) if (match := SUBJECT.fullmatch(name))}
    if len(found) < len(names) or not names:
        raise DataError(
            f"data.path: {SUBJECTS} holds {len(names)} folders of subjects, {len(found)} of them named as they should. "
            f"Allowed is one for each subject, such as IXI002-Guys-0828; unpack the archive anew."
        )
    missing = ("", "")
    chosen = [found.get(subject.zfill(3), missing) for subject in subjects.tolist()]
    for row, ((name, hospital), site) in enumerate(zip(chosen, sites.tolist(), strict=True), 1):
        if hospital != site:
            what = f"{SUBJECTS} says {hospital}" if name else f"{SUBJECTS} has no folder of that subject"
            raise DataError(
                f"{TABLE}: row {row} is a subject of {site}, and {what}. Both must agree; unpack the archive anew, or "
                f"leave out the row."
            )
    if len(found) > len(set(chosen)):
        raise DataError(
            f"{TABLE}: {len(found) - len(set(chosen))} of {len(found)} folders of {SUBJECTS} have no row. Every "
            f"subject needs one; copy the file anew."
        )
    return [name for name, _ in chosen]


def _volume(root: Path, subject: str, kind: str) -> str:
    """Find the one volume of a kind. Shapes: path relative to the root.

    Raises:
        DataError: None, or several.
    """
    files = sorted((root / SUBJECTS / subject / kind).glob("*.nii.gz"))
    if len(files) != 1:
        raise DataError(
            f"data.path: a subject of {SUBJECTS} has {len(files)} files {kind}/*.nii.gz. Allowed is one; unpack the "
            f"archive anew."
        )
    return str(files[0].relative_to(root))
