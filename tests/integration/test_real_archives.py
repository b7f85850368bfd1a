"""Real images of `../shared/data` beside the repository: every 2D archive opens and holds what its sidecar counts."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.config import DataSection, load_run_config
from common.data.archive import archive
from common.data.federation import open_federation
from common.errors import DataError

FOLDER = Path(__file__).parents[2] / "../shared/data"
FLAT = (
    "blood_cells_bccd_32",
    "brain_lgg_flair_128",
    "breast_us_busi_96",
    "cxr_projection_112",
    "fundus_vessels_256",
    "mednist_64",
    "pneumonia_cxr_28",
    "pneumonia_cxr_64",
    "skin_ham10000_64",
)
EYES = {"patient": "ids", "patient-pattern": "^(.*?)[LR]?$"}
PARTS = ("train", "val", "test")


def settings(name: str, **changes: object) -> DataSection:
    path = FOLDER / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in ../shared/data beside the repository")
    flat = {"name": "archive", "path": str(path), "image-size": 0} | {
        k.replace("_", "-"): v for k, v in changes.items()
    }
    return load_run_config({f"data.{key}": value for key, value in flat.items()}).data


@pytest.mark.parametrize("name", FLAT)
def test_counts_are_those_of_the_sidecar(name: str) -> None:
    chosen = settings(name)
    sidecar = json.loads((FOLDER / f"{name}.json").read_text())
    dataset = archive(chosen)
    assert dataset.licence
    assert dataset.name == name
    assert len(dataset) == sidecar["arrays"]["images"]["shape"][0]
    assert np.bincount(dataset.sites).tolist() == list(sidecar["n_per_centre"].values())
    assert all("(" not in site for site in dataset.site_names)
    for site, counts in enumerate(sidecar.get("class_counts_per_centre", {}).values()):
        assert dataset.labels is not None
        found = np.bincount(dataset.labels[dataset.sites == site], minlength=len(dataset.classes))
        assert dict(zip(dataset.classes, found.tolist(), strict=True)) == counts


@pytest.mark.parametrize("name", FLAT)
def test_no_patient_in_two_splits(name: str) -> None:
    federation = open_federation(settings(name, **EYES if name.startswith("fundus") else {}))
    for site in federation.sites:
        people = [set(getattr(site, part).patients.tolist()) for part in PARTS]
        assert all(people)
        assert len(set.union(*people)) == sum(map(len, people))


def test_two_eyes_of_a_child_stay_together() -> None:
    site = open_federation(settings("fundus_vessels_256", **EYES)).site("CHASE_DB1")
    people = [set(getattr(site, part).patients.tolist()) for part in PARTS]
    assert [len(each) for each in people] == [8, 2, 4]
    assert all(len(getattr(site, part)) == 2 * len(each) for part, each in zip(PARTS, people, strict=True))


def test_official_splits_of_pneumonia_are_kept() -> None:
    (site,) = open_federation(settings("pneumonia_cxr_28")).sites
    assert [len(getattr(site, part)) for part in PARTS] == [4708, 524, 624]


def test_melanoma_against_naevus_at_a_held_out_centre() -> None:
    federation = open_federation(settings("skin_ham10000_64", classes="nv,mel", held_out="Vienna_DIAS"))
    assert federation.classes == ("nv", "mel")
    held_out = federation.sites[-1]
    assert (held_out.name, held_out.role) == ("vienna_dias", "held-out")
    labels = np.concatenate([getattr(held_out, part).labels for part in PARTS])
    assert np.bincount(labels).tolist() == [217, 44]


def test_tables_are_refused() -> None:
    with pytest.raises(DataError, match="Tables"):
        archive(settings("heart_disease_tabular"))


def test_volumes_are_slices_of_their_patients() -> None:
    data = archive(settings("hippocampus_3d"))
    assert len(data) == 200 * 40
    assert len(set(data.patients.tolist())) == 200
