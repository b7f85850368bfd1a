"""`consilium study drift`: an atlas is learnt, judged on unseen patients, kept, and held against new sites."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import ConfigError, DataError
from common.shift.drift_atlas import load_atlas
from simulations.cli import app
from simulations.corruptions.corrupt import corrupt, of_modality
from simulations.drift import Drift, New, study_drift
from simulations.drift_pages import show_drift
from simulations.drift_trials import OUTCOMES, Trials
from tests.studies import experiment, judged, made_dataset, written

NAMES = ["gaussian_noise", "gaussian_blur", "brightness_up"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift")
    path = written(folder / "seen.npz", made_dataset(("a", "b")))
    judged(
        experiment(path, task__positive="b", seeds="[1]", protocols="federated", data__held_out="Gamma"), folder / "run"
    )
    return folder / "run"


@pytest.fixture(scope="module")
def shown(run: Path) -> Drift:
    """Learnt on three corruptions, with an archive whose sites were brightened beyond anything."""
    bright = made_dataset(("a", "b"), seed=3, sites=("Delta", "Epsilon"))
    images = corrupt(bright.images, "brightness_up", 5, 1)
    images[bright.sites == 1] = bright.images[bright.sites == 1]
    path = written(run.parent / "new.npz", type(bright)(**{**_fields(bright), "images": images}))
    found = study_drift(run, "ultrasound", new=New(path), chosen=NAMES)
    show_drift(found, run / "drift", as_json=False)
    return found


def _fields(data: object) -> dict[str, object]:
    return {name: getattr(data, name) for name in data.__dataclass_fields__}  # type: ignore[attr-defined]


def test_new_sites_are_named_and_a_brightened_one_points_at_brightness(shown: Drift) -> None:
    assert [(row["site"], row["role"]) for row in shown.sites] == [
        ("Gamma", "held-out"),
        ("Delta", "external"),
        ("Epsilon", "external"),
    ]
    by_name = {row["site"]: row for row in shown.sites}
    assert by_name["Delta"]["corruption"] == "brightness_up"
    assert by_name["Delta"]["along"] > 3 * by_name["Epsilon"]["along"]
    assert by_name["Delta"]["kind"] != "no drift"
    assert by_name["Gamma"]["kind"] != "resembles"


def test_unseen_patients_judge_the_atlas_with_and_without_what_was_done(shown: Drift) -> None:
    assert shown.trials is not None
    rows = shown.trials.rows
    assert {row["corruption"] for row in rows} == set(NAMES)
    assert len(rows) % (2 * 5 * len(NAMES)) == 0
    assert all(row["told"] != row["corruption"] for row in rows if not row["known"])
    assert shown.trials.confusion(shown.atlas.names).sum() == len(rows) / 2
    assert {row["site"] for row in shown.alarms} == {"Alpha", "Beta"}


def test_shares_by_hand() -> None:
    def row(done: str, told: str, known: bool = True) -> dict[str, object]:
        family = {"ring": "artefact", "metal": "artefact", "crop": "geometry"}
        return {"corruption": done, "family": family[done], "severity": 2, "known": known, "told": told,
                "told_family": family.get(told, ""), "told_severity": 3 if told in family else 0}  # fmt: skip

    trials = Trials(
        [
            row("ring", "ring"),
            row("ring", "metal"),
            row("crop", OUTCOMES[0]),
            row("metal", OUTCOMES[1]),
            row("ring", "metal", False),
            row("crop", "ring", False),
            row("metal", OUTCOMES[1], False),
        ]
    )
    found = trials.shares()
    assert found["trials"] == 4
    assert [found[key] for key in ("drift_seen", "right", "right_family")] == [0.75, 0.25, 0.5]
    assert [found[key] for key in ("precision", "precision_family", "severity_error")] == [0.5, 1.0, 1.0]
    assert [found[key] for key in ("unknown_unnamed", "unknown_family", "unknown_wrong")] == [1 / 3] * 3
    np.testing.assert_array_equal(
        trials.confusion(("ring", "metal", "crop")), [[1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0]]
    )


def test_the_atlas_is_kept_and_taken_again_for_the_same_model_only(run: Path, shown: Drift, tmp_path: Path) -> None:
    atlas = run / "drift" / "atlas.safetensors"
    assert list(load_atlas(atlas).names) == NAMES
    for picture in ("alike", "confusion"):
        assert (run / "drift" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    answer = CliRunner().invoke(
        app,
        [
            "study",
            "drift",
            str(run),
            "--modality",
            "ultrasound",
            "--atlas",
            str(atlas),
            "--out",
            str(tmp_path),
            "--json",
        ],
    )
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert [row["said"] for row in said["sites"]] == [row["said"] for row in shown.sites[:1]]
    assert not (tmp_path / "atlas.safetensors").exists()
    with pytest.raises(ConfigError, match="modality"):
        study_drift(run, "ct", given=atlas)
    path = written(tmp_path / "seen.npz", made_dataset(("a", "b"), seed=4))
    judged(experiment(path, task__positive="b", seeds="[2]", protocols="federated"), tmp_path / "other")
    with pytest.raises(ConfigError, match="one model only"):
        study_drift(tmp_path / "other", "ultrasound", given=atlas)


def test_reading_without_an_archive_is_refused(run: Path) -> None:
    answer = CliRunner().invoke(app, ["study", "drift", str(run), "--modality", "ct", "--set", "data.patient=who"])
    assert answer.exit_code != 0
    assert "without --archive" in answer.output


def test_one_source_site_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset(("a", "b"), sites=("Alpha", "Beta")))
    judged(
        experiment(
            path, task__positive="b", seeds="[1]", protocols="federated", data__held_out="Beta", cohort__quorum=1
        ),
        tmp_path / "run",
    )
    with pytest.raises(DataError, match="at least 2"):
        study_drift(tmp_path / "run", "ultrasound", chosen=NAMES[:1])


@pytest.mark.slow
def test_all_that_fit_are_learnt_and_told_on_paper(run: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["study", "drift", str(run), "--modality", "ultrasound", "--out", str(tmp_path)])
    assert answer.exit_code == 0, answer.output
    assert "named right" in answer.output
    assert "Gamma" in answer.output
    assert list(load_atlas(tmp_path / "atlas.safetensors").names) == of_modality("ultrasound")
