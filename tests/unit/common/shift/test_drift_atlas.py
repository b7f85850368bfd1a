"""The drift atlas on made sites: what is in it is found back, what is not is none of it, and clean sites stay quiet."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError, RunFolderError
from common.shift.drift_atlas import Clean, DriftAtlas, learn_atlas, load_atlas, save_atlas
from common.shift.frame import frame_of
from common.shift.resemblance import likeness, reaches

LENGTH, NAMES = 20, ("ring", "crop", "hair", "spikes")
FAMILIES = ("artefact", "geometry", "artefact", "artefact")
SCALES = np.geomspace(0.01, 1.0, LENGTH)
"""Entries of very different spread, as a signature has; the class moves the last entry."""


def patients(seed: int, count: int = 60, ill: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < ill).astype(np.int64)
    rows = rng.normal(0, 1, (count, LENGTH)) * SCALES
    rows[:, -1] += 3 * labels
    return rows, labels


def displacements() -> dict[str, np.ndarray]:
    """Each corruption moves entries of its own, further with each severity."""
    found = {}
    for place, name in enumerate(NAMES):
        direction = np.zeros(LENGTH)
        direction[3 * place : 3 * place + 3] = (1.0, -1.0, 0.5)
        found[name] = np.outer([0.7, 1.4, 2.1, 2.8, 3.5], direction * SCALES)
    return found


def learnt(first: int) -> DriftAtlas:
    clean = [Clean(rows, rows, labels) for rows, labels in (patients(first + site) for site in range(3))]
    return learn_atlas(displacements(), FAMILIES, clean, {"modality": "ct"})


@pytest.fixture(scope="module")
def atlas() -> DriftAtlas:
    return learnt(0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_a_displacement_of_the_atlas_is_found_back_with_its_severity(atlas: DriftAtlas, name: str, severity: int):
    found = atlas.match(patients(9, 200)[0] + displacements()[name][severity - 1])
    assert (found.kind, found.corruption, found.severity) == ("resembles", name, severity)
    assert found.cosine > 0.9
    assert found.support > 0.95
    assert found.mixture[0][0] == name
    assert str(found) == f"resembles {name}, severity {severity} (cosine {found.cosine:.2f})"


def test_without_sampling_the_cosine_is_one_and_all_is_explained(atlas: DriftAtlas):
    rows = np.tile(atlas.entries[1, 2], (4, 1))
    found = atlas.match_placed(rows, 0.0)
    assert (found.kind, found.corruption, found.severity, found.support) == ("resembles", "crop", 3, 1.0)
    assert found.cosine == pytest.approx(1.0)
    assert found.explained == pytest.approx(1.0)
    assert found.along == pytest.approx(np.linalg.norm(atlas.entries[1, 2]))


def test_a_scaled_displacement_has_the_severity_of_its_size(atlas: DriftAtlas):
    told = [atlas.match_placed(np.tile(scale * atlas.entries[2, 0], (4, 1)), 0.0) for scale in (1.2, 1.8, 3.3, 40)]
    assert [(one.corruption, one.severity) for one in told] == [("hair", severity) for severity in (1, 2, 3, 5)]


def test_an_orthogonal_and_an_opposite_displacement_are_none_of_these(atlas: DriftAtlas):
    away = np.zeros(LENGTH)
    away[15:18] = 2.5 * SCALES[15:18]
    for moved in (away, -displacements()["crop"][4]):
        found = atlas.match(patients(9, 200)[0] + moved)
        assert found.kind == "none of these", found
        assert str(found) == "none of these"


def test_what_is_taken_out_of_the_atlas_is_none_of_these(atlas: DriftAtlas):
    rows = patients(9, 200)[0] + displacements()["spikes"][3]
    assert atlas.match(rows).corruption == "spikes"
    assert atlas.match(rows, without="spikes").kind == "none of these"


def test_two_at_once_are_a_mixture_in_equal_shares(atlas: DriftAtlas):
    both = displacements()["ring"][4] + displacements()["hair"][4]
    found = atlas.match(patients(9, 400)[0] + both)
    assert found.cosine == pytest.approx(0.5**0.5, abs=0.03)
    assert {name for name, _ in found.mixture[:2]} == {"ring", "hair"}
    assert all(share == pytest.approx(0.5, abs=0.06) for _, share in found.mixture[:2])
    assert found.explained > 0.95


def test_clean_sites_are_told_none_at_least_nineteen_times_in_twenty():
    """Over atlases too: each errs by the patients that it was learnt on. Sites of 6, 25 and 90 patients."""
    found = []
    for first in range(0, 60, 10):
        atlas = learnt(first)
        for count in (6, 25, 90):
            placed = [atlas.frame(patients(1000 + seed, count)[0]).mean(0) - atlas.reference for seed in range(60)]
            reach, bound = reaches(np.array(placed), atlas.entries), atlas.bounds(count).along
            found.append((reach > bound).mean())
    assert np.mean(found) <= 0.05
    assert max(found) < 0.25
    assert learnt(0).match(patients(1000, 25)[0]).kind == "no drift"


def test_prevalence_alone_is_no_drift(atlas: DriftAtlas):
    assert atlas.match(patients(5, 200, ill=0.95)[0]).kind == "no drift"


def test_more_patients_see_smaller_drifts(atlas: DriftAtlas):
    assert (np.diff(atlas.thresholds, axis=1) < 0).all()


def test_in_the_frame_patients_vary_alike_and_classes_coincide():
    rng = np.random.default_rng(0)
    mixing = rng.normal(0, 1, (6, 6))
    labels, sites = rng.integers(0, 2, 8000), rng.integers(0, 3, 8000)
    rows = rng.normal(0, 1, (8000, 6)) @ mixing.T
    gap = rng.normal(0, 1, 6)
    rows = rows + labels[:, None] * gap + sites[:, None] * rng.normal(0, 1, 6)
    frame = frame_of(rows, labels, sites)
    assert frame.freedom == 5
    np.testing.assert_allclose(frame(gap) / np.linalg.norm(frame.matrix @ mixing), 0, atol=0.02)
    inside = np.concatenate([frame(rows[sites == k]) - frame(rows[sites == k]).mean(0) for k in range(3)])
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(np.cov(inside.T))), [0, 1, 1, 1, 1, 1], atol=0.05)


def test_likeness_by_hand():
    entries = np.array([[[1.0, 0], [2, 0]], [[0, 1.0], [1, 1]], [[-1.0, 0], [-3, 0]]])
    np.testing.assert_allclose(likeness(entries), [[1, 0.5**0.5, -1], [0.5**0.5, 1, 0], [-1, 0, 1]], atol=1e-12)


def test_the_file_is_small_and_comes_back_whole(atlas: DriftAtlas, tmp_path: Path):
    save_atlas(atlas, tmp_path / "atlas.safetensors")
    assert (tmp_path / "atlas.safetensors").stat().st_size < 8_000
    back = load_atlas(tmp_path / "atlas.safetensors")
    assert (back.names, back.families, back.about) == (atlas.names, atlas.families, {"modality": "ct"})
    rows = patients(9, 50)[0] + displacements()["ring"][2]
    assert str(back.match(rows)) == str(atlas.match(rows))
    content = bytearray((tmp_path / "atlas.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "bent.safetensors").write_bytes(bytes(content))
    for name in ("bent", "missing"):
        with pytest.raises(RunFolderError, match="no whole drift atlas"):
            load_atlas(tmp_path / f"{name}.safetensors")


def test_what_cannot_be_learnt_or_matched_is_refused(atlas: DriftAtlas):
    rows, labels = patients(0)
    with pytest.raises(DataError, match="at least 2"):
        learn_atlas(displacements(), FAMILIES, [Clean(rows, rows, labels)], {})
    with pytest.raises(DataError, match="2 patients"):
        atlas.match(rows[:1])
    with pytest.raises(DataError, match="entries meet"):
        atlas.match(rows[:, :7])
    with pytest.raises(DataError, match="none varies"):
        frame_of(rows[:3], np.arange(3), np.zeros(3, np.int64))
