"""No patient, file or folder leaves a site: not in a message, not in a log, not in an error.

Every name that a hospital could have carries a marker; then everything that crosses the Grid and everything that is
logged is searched for it.
"""

import logging

import numpy as np
import pytest
from PIL import Image

import client.alone
import client.app
import client.personal.base
from common.data.archive import write_archive
from common.data.base import Dataset
from common.errors import AggregationError, ConsiliumError, DataError
from common.logs import set_up
from common.messages import Hello
from server.checkpoint import NAME
from server.history import NAME as HISTORY
from simulations import engine
from tests.federations import small_config, train_small

MARKER = "Smith0815"
SITES = ("harbour", "valley")


def write_archive_data(folder):
    rng = np.random.default_rng(0)
    count = 60
    path = folder / f"{MARKER}.npz"
    write_archive(
        path,
        Dataset(
            name=f"study of {MARKER}",
            images=rng.integers(0, 256, (count, 1, 32, 32), dtype=np.uint8),
            labels=rng.integers(0, 2, count),
            patients=np.array([f"{MARKER}-{index % 15}" for index in range(count)]),
            sites=np.arange(count) % 2,
            site_names=SITES,
            classes=("no", "yes"),
            licence=MARKER,
        ),
    )
    return {"data__name": "archive", "data__path": str(path), "data__image_size": 0}


def write_folder_data(folder):
    rng = np.random.default_rng(0)
    (folder / MARKER).mkdir()
    rows = ["image,patient,site,label"]
    for index in range(60):
        name = f"{MARKER}/{MARKER}-{index}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / name)
        rows.append(f"{name},{MARKER}-{index % 15},{SITES[index % 2]},{'yes' if index % 3 else 'no'}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return {"data__name": "folder", "data__path": str(folder), "data__image_size": 32}


WRITERS = {"archive": write_archive_data, "folder": write_folder_data}


class Wire:
    """Everything that crossed the Grid and everything that was said about it."""

    def __init__(self, monkeypatch, caplog, capfd):
        self.messages: list[bytes] = []
        self._caplog, self._capfd = caplog, capfd
        caplog.set_level(logging.INFO)
        encode, decode = engine._encode, engine._decode

        def encoded(message):
            self.messages.append(encode(message))
            return self.messages[-1]

        def decoded(content):
            self.messages.append(content)  # what a worker has encoded
            return decode(content)

        monkeypatch.setattr(engine, "_encode", encoded)
        monkeypatch.setattr(engine, "_decode", decoded)
        for name in ("flwr", "server", "client", "common", "simulations"):
            monkeypatch.setattr(logging.getLogger(name), "propagate", True)
            monkeypatch.setattr(logging.getLogger(name), "disabled", False)

    def search(self, *more):
        out, err = self._capfd.readouterr()
        said = [out, err, self._caplog.text, *(record.getMessage() for record in self._caplog.records), *more]
        places = [text for text in said if MARKER.casefold() in str(text).casefold()]
        places += [content for content in self.messages if MARKER.encode() in content]
        return places


@pytest.fixture
def wire(monkeypatch, caplog, capfd):
    return Wire(monkeypatch, caplog, capfd)


@pytest.fixture(params=sorted(WRITERS))
def data(request, tmp_path):
    return WRITERS[request.param](tmp_path)


@pytest.mark.parametrize("strategy", ["fedavg", "fedbn"])
def test_a_whole_run_says_no_name(wire, data, tmp_path, strategy):
    config = small_config(strategy__name=strategy, out=str(tmp_path / "run"), **data)
    end, records = train_small(config, SITES)
    assert end.round == 2
    # Each site: a hello, two trainings and two judgements; there and back; seen when encoded and when decoded.
    assert len(wire.messages) == 2 * (1 + 2 + 2) * 2 * 2
    assert wire.search(records) == []
    for name in (NAME, HISTORY):
        assert MARKER.encode() not in (tmp_path / "run" / name).read_bytes()


def test_workers_say_no_name_either(wire, data):
    train_small(small_config(**data), SITES, workers=2)
    assert wire.search() == []


def where(place, monkeypatch, error):
    def fail(*_, **__):
        raise error

    module, name = {
        "training": (client.personal.base, "train_locally"),
        "judging": (client.alone, "predict"),
        "model": (client.app, "load_arrays"),
        "reply": (client.app, "pack"),
    }[place]
    monkeypatch.setattr(module, name, fail)


@pytest.mark.parametrize(
    "error",
    [
        DataError(f"image {MARKER}.png of patient {MARKER} is broken"),
        FileNotFoundError(2, "No such file", f"/data/{MARKER}.png"),
        KeyError(MARKER),
        ValueError(MARKER),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("place", ["training", "judging", "model", "reply"])
def test_an_error_inside_a_site_says_no_name(wire, monkeypatch, tmp_path, place, error):
    config = small_config(attention__every=0, **write_archive_data(tmp_path))
    where(place, monkeypatch, error)
    said = []
    try:
        _, said = train_small(config, SITES)
    except ConsiliumError as refusal:
        said = [str(refusal)]
    code = error.code if isinstance(error, ConsiliumError) else "internal"
    assert code in str(said)
    assert wire.search(said) == []


def test_the_site_itself_can_see_the_details(monkeypatch, tmp_path, capfd):
    """At DEBUG, which is said to stay at the site: else nobody could cure it."""
    set_up("DEBUG", as_json=True)
    where("training", monkeypatch, DataError(f"image {MARKER}.png is broken"))
    with pytest.raises(AggregationError):
        train_small(small_config(**write_archive_data(tmp_path)), SITES)
    assert f"image {MARKER}.png is broken" in capfd.readouterr().err


@pytest.mark.parametrize("damage", ["cut short", "gone", "not a picture"])
def test_a_damaged_picture_says_no_name(wire, tmp_path, damage):
    settings = write_folder_data(tmp_path)
    picture = tmp_path / MARKER / f"{MARKER}-7.png"
    if damage == "gone":
        picture.unlink()
    else:
        picture.write_bytes(picture.read_bytes()[:60] if damage == "cut short" else MARKER.encode() * 50)
    with pytest.raises(AggregationError) as refusal:
        train_small(small_config(**settings), SITES)
    assert "data" in str(refusal.value)
    assert wire.search(str(refusal.value)) == []


def test_a_damaged_archive_says_no_name(wire, tmp_path):
    settings = write_archive_data(tmp_path)
    path = tmp_path / f"{MARKER}.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(AggregationError) as refusal:
        train_small(small_config(**settings), SITES)
    assert wire.search(str(refusal.value)) == []


def test_the_search_finds_what_it_looks_for(wire, tmp_path, monkeypatch):
    """A site's name does travel: a marker in it must be found, or the tests above prove nothing."""
    settings = write_archive_data(tmp_path)
    monkeypatch.setattr(client.app, "Hello", lambda **fields: Hello(**{**fields, "classes": (MARKER, "yes")}))
    train_small(small_config(**settings), SITES)
    assert wire.search()
