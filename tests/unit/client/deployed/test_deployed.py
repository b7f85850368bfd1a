"""A shipped model at a hospital: what answers, who may adapt, what is logged, and the way back."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from client.adaptation.artefact import Card, describe, read_artefact, write_artefact
from client.adaptation.fasa.gate import Null
from client.adaptation.measure import add_sums, measure_sums, passes, source_of
from client.cli import app
from client.deployed.session import predict_images
from client.site_settings import read_site_config
from common.arrays import model_arrays, read_arrays, write_arrays
from common.config import ModelSection, TaskSection, load_run_config
from common.data.archive import write_archive
from common.errors import ConfigError, DataError
from common.models.build import build_model
from common.secagg.identity import Identity
from common.shift.nulls import Thresholds
from common.tasks.build import build_task
from tests.studies import made_dataset

SIDE, WINDOW = 16, 16
CLASSES = ("benign", "malign")
NEEDS = ("class_prior", "confusion", "attention", "class_features", "bands", "null")
SIGNER = Identity.fresh("coordinator")


@pytest.fixture(scope="module")
def shipped():
    task = build_task(TaskSection(name="binary", positive=""), CLASSES, ())
    settings = {"model.name": "se-convnet", "model.width": 4, "task.name": "binary", "task.positive": ""}
    model = build_model(ModelSection(name="se-convnet", width=4), 1, 1, SIDE, seed=3).eval()
    sites = [made_dataset(CLASSES, side=SIDE, seed=seed, sites=("one",)) for seed in (1, 2)]
    source = source_of({}, task)
    for names in passes(NEEDS):
        source = source_of(add_sums([measure_sums(model, task, site, names, source) for site in sites]), task, source)
    source = replace(source, null=Null(Thresholds(0.0, 0.0), WINDOW))
    card = Card(
        settings=settings, classes=CLASSES, mask_classes=(), channels=1, image_size=SIDE, method="federated", seed=1,
        privacy="none", run="r" * 64, version="0",
    )  # fmt: skip
    return model, describe(card, model, model_arrays(model), source)


@pytest.fixture
def site(tmp_path, shipped):
    model, artefact = shipped
    write_arrays(tmp_path / "shipped" / "model.safetensors", model_arrays(model), {})
    write_artefact(tmp_path / "shipped" / "artefact.safetensors", artefact, SIGNER)
    write_archive(tmp_path / "new.npz", replace(made_dataset(CLASSES, side=SIDE, seed=9), labels=None, masks=None))
    return tmp_path


KEY = SIGNER.public.hex()


def toml(folder, policy='[adaptation]\nmethods = ["fasa"]\nlocked = false\n', key=KEY):
    path = folder / "site.toml"
    path.write_text(
        'name = "new"\nstate = "state"\ndevice = "cpu"\n[data]\nname = "archive"\n'
        f'[shipped]\nfolder = "shipped"\ntrusted-key = "{key}"\n{policy}'
    )
    return path


def call(*words, code=0):
    found = CliRunner().invoke(app, list(map(str, words)))
    assert found.exit_code == code, found.output
    return found


def session(folder, method="fasa", **changes):
    own = read_site_config(toml(folder, **changes))
    return predict_images(own, folder / "new.npz", folder / f"{method}.csv", method)


def test_the_artefact_comes_back_whole_and_is_small(site, shipped):
    _, artefact = shipped
    path = site / "shipped" / "artefact.safetensors"
    found = read_artefact(path, SIGNER.public)
    assert found.card == artefact.card
    assert (found.model, found.schema) == (artefact.model, artefact.schema)
    for name in ("counts", "means", "variance"):
        for law in ("attention", "class_features"):
            assert np.array_equal(
                getattr(getattr(found.source, law), name), getattr(getattr(artefact.source, law), name)
            )
    assert torch.equal(found.source.confusion, artefact.source.confusion)
    assert torch.equal(found.source.class_prior, artefact.source.class_prior)
    assert np.array_equal(found.source.bands.low, artefact.source.bands.low)
    assert found.source.null == artefact.source.null
    assert path.stat().st_size < 16 * 1024


def test_without_a_wish_to_adapt_the_shipped_model_answers_and_nothing_is_logged(site, shipped):
    model, _ = shipped
    found = session(site, "none", policy="")
    data = made_dataset(CLASSES, side=SIDE, seed=9)
    with torch.no_grad():
        wanted = model(data.batch(np.arange(len(data)), torch.device("cpu")).images).double().sigmoid().numpy()
    assert np.allclose(found.answers, wanted, atol=1e-6)
    rows = list(csv.DictReader((site / "none.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [str(place) for place in range(len(data))]
    assert [float(row["malign"]) for row in rows] == pytest.approx(wanted[:, 0].tolist(), abs=1e-6)
    assert not (site / "state" / "adaptation.jsonl").exists()


def test_a_session_is_logged_without_image_or_patient(site):
    found = session(site)
    assert len(found.decisions) == 3
    body = json.loads(call("adaptation", "log", toml(site), "--json").output)
    (record,) = body["records"]
    assert record["event"] == "session"
    assert record["method"] == "fasa"
    assert record["images"] == len(found.answers)
    assert [window["action"] for window in record["windows"]] == [decision.action for decision in found.decisions]
    assert body["head"] == found.head
    text = (site / "state" / "adaptation.jsonl").read_text()
    assert not any(word in text for word in ("p0", "p1", "new.npz", str(site)))
    assert "fasa: 48 images, 3 windows, 3 alarms" in call("adaptation", "log", toml(site)).output


def test_the_table_says_of_each_image_what_its_window_led_to(site):
    found = session(site)
    rows = list(csv.DictReader((site / "fasa.csv").read_text().splitlines()))
    assert [row["action"] for row in rows[::WINDOW]] == [decision.action for decision in found.decisions]
    assert {row["flagged"] for row in rows} == {"yes"}
    assert rows[WINDOW]["window"] == "2"


def test_locked_is_the_default_flags_and_answers_as_shipped(site):
    plain, locked = session(site, "none"), session(site, policy='[adaptation]\nmethods = ["fasa"]\n')
    assert {decision.action for decision in locked.decisions} == {"locked"}
    assert all(decision.flagged for decision in locked.decisions)
    assert np.allclose(plain.answers, locked.answers, atol=0)


@pytest.mark.parametrize(
    ("method", "policy", "said"),
    [
        ("fasa", "", "Adaptation is off until"),
        ("tent", '[adaptation]\nmethods = ["fasa"]\n', "allows fasa"),
        ("tent", '[adaptation]\nmethods = ["tent"]\n', "is locked"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused_before_anything_is_read(site, method, policy, said):
    (site / "shipped" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=said):
        session(site, method, policy=policy)
    assert not (site / f"{method}.csv").exists()


def test_another_method_runs_where_the_policy_names_it(site):
    found = session(site, "tent", policy='[adaptation]\nmethods = ["tent"]\nlocked = false\n')
    (record,) = json.loads(call("adaptation", "log", toml(site), "--json").output)["records"]
    assert record["counts"]["updates"] == 1
    assert record["windows"] == []
    assert np.isfinite(found.answers).all()


def test_a_rollback_ends_adaptation_until_it_is_lifted(site):
    first, path = session(site, "none"), toml(site)
    session(site)
    assert "the shipped model" in call("adaptation", "rollback", path, "--why", "flags every week").output
    (site / "fasa.csv").unlink()
    refused = call("predict", path, site / "new.npz", "--out", site / "x.csv", "--adapt", "fasa", code=3)
    assert "was rolled back on" in refused.output
    call("predict", path, site / "new.npz", "--out", site / "after.csv")
    assert (site / "after.csv").read_bytes() == (site / "none.csv").read_bytes()
    assert "Rolled back on" in call("adaptation", "log", path).output
    call("adaptation", "allow", path)
    assert "nothing to lift" in call("adaptation", "allow", path).output
    body = json.loads(
        call("predict", path, site / "new.npz", "--out", site / "x.csv", "--adapt", "fasa", "--json").output
    )
    assert body["images"] == len(first.answers)
    events = [r["event"] for r in json.loads(call("adaptation", "log", path, "--json").output)["records"]]
    assert events == ["session", "rollback", "allow", "session"]


def test_adaptation_ends_even_if_the_shipped_files_are_gone(site):
    path = toml(site)
    (site / "shipped" / "model.safetensors").unlink()
    assert "missing" in call("adaptation", "rollback", path, code=4).output
    assert json.loads(call("adaptation", "log", path, "--json").output)["rolled_back"]


def test_a_changed_log_is_found(site):
    session(site)
    log = site / "state" / "adaptation.jsonl"
    log.write_text(log.read_text().replace('"images": 48', '"images": 47'))
    assert "line 1 does not continue the chain" in call("adaptation", "log", toml(site), code=8).output


def test_files_of_others_are_refused(site, shipped):
    with pytest.raises(DataError, match="is signed by the key"):
        session(site, key=Identity.fresh("coordinator").public.hex())
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        session(site, key="abc")
    path = site / "shipped" / "model.safetensors"
    arrays, _ = read_arrays(path)
    name = next(name for name in arrays if name.endswith("weight"))
    write_arrays(path, {**arrays, name: arrays[name] + 1e-6}, {})
    with pytest.raises(DataError, match="the artefact belongs to"):
        session(site)
    model, artefact = shipped
    write_arrays(path, model_arrays(model), {})
    write_artefact(site / "shipped" / "artefact.safetensors", replace(artefact, schema="0" * 64), SIGNER)
    with pytest.raises(DataError, match="under the schema"):
        session(site)


def test_images_are_brought_to_the_models_form_and_an_answer_is_never_overwritten(site):
    big = replace(made_dataset(CLASSES, channels=3, side=40, seed=9, sites=("one",)), labels=None, masks=None)
    write_archive(site / "big.npz", big)
    path = toml(site)
    call("predict", path, site / "big.npz", "--out", site / "big.csv")
    assert len(list(csv.DictReader((site / "big.csv").read_text().splitlines()))) == len(big)
    assert "nothing is overwritten" in call("predict", path, site / "big.npz", "--out", site / "big.csv", code=3).output
    assert "does not exist" in call("predict", path, site / "no.npz", "--out", site / "no.csv", code=4).output


def test_a_site_without_a_shipped_model_is_told_what_to_do(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('name = "new"\nstate = "state"\n[data]\nname = "archive"\n')
    assert "has no [shipped]" in call("predict", path, path, "--out", tmp_path / "x.csv", code=3).output
    assert "Adaptation is off" in call("adaptation", "log", path).output


def test_the_settings_of_a_card_are_settings_of_a_run(shipped):
    _, artefact = shipped
    assert load_run_config(artefact.card.settings).model.width == 4
