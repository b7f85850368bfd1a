"""MedMNIST files: locally made in the official format, and fetched from a server on loopback."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import DataSection
from common.data import medmnist as module
from common.data.federation import open_federation
from common.data.medmnist import medmnist
from common.data.medmnist_table import MEDMNIST, RECORD, MedMnist, published
from common.errors import ConfigError, DataError

Settings = Callable[..., DataSection]
COUNTS = {"train": 20, "val": 6, "test": 8}


def official(channels: int = 1, findings: int = 0, **changes: Any) -> dict[str, np.ndarray]:
    """The six arrays as published: labels uint8 [N, 1], or [N, L] of 0 and 1."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in COUNTS.items():
        shape = (count, 28, 28) if channels == 1 else (count, 28, 28, 3)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, findings or 1), dtype=np.uint8)
    return {name: array for name, array in (arrays | changes).items() if array is not None}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "pneumoniamnist", **changes: Any) -> Path:
        np.savez_compressed(tmp_path / f"{name}.npz", **official(**changes))
        return tmp_path / f"{name}.npz"

    return write


@pytest.mark.parametrize("ending", ["", ".npz"])
def test_official_splits_are_kept(save: Callable[..., Path], data_settings: Settings, ending: str) -> None:
    path = save()
    settings = data_settings(name="medmnist", path=str(path.with_suffix("")) + ending)
    federation = open_federation(settings)
    (site,) = federation.sites
    assert (site.name, federation.licence) == ("pneumoniamnist", "CC BY 4.0")
    assert federation.classes == ("normal", "pneumonia")
    for split, count in COUNTS.items():
        part = getattr(site, split)
        assert len(part) == count
        assert np.array_equal(part.images[:, 0], official()[f"{split}_images"])
        assert np.array_equal(part.labels, official()[f"{split}_labels"][:, 0])


def test_colour_findings_and_size(save: Callable[..., Path], data_settings: Settings) -> None:
    path = save("chestmnist_64", channels=3, findings=14)
    dataset = medmnist(data_settings(name="medmnist", path=str(path), image_size=14, classes="mass,hernia"))
    assert dataset.images.shape == (34, 3, 14, 14)
    assert dataset.classes == ("mass", "hernia")
    labels = np.concatenate([official(3, 14)[f"{split}_labels"] for split in COUNTS])
    assert np.array_equal(dataset.labels, labels[:, [4, 13]])  # type: ignore[arg-type]


def test_divided_among_sites_the_official_splits_stay(save: Callable[..., Path], data_settings: Settings) -> None:
    settings = data_settings(name="medmnist", path=str(save()), partition="quantity", partition_sites=2, seed=1)
    federation = open_federation(settings)
    assert sum(len(site.test) for site in federation.sites) == COUNTS["test"]


def test_other_names_open_with_classes_by_index(save: Callable[..., Path], data_settings: Settings) -> None:
    dataset = medmnist(data_settings(name="medmnist", path=str(save("my-own"))))
    assert (dataset.classes, dataset.licence) == (("0", "1"), "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_images": None}, "there is no val_images"),
        ({"test_labels": None, "train_images": None}, "no train_images and no test_labels"),
        ({"val_images": np.zeros((6, 14, 14), dtype=np.uint8)}, "differ in shape"),
        ({"val_images": np.zeros((6, 28, 28))}, "differ in shape or dtype"),
        ({"val_labels": np.zeros((5, 1), dtype=np.uint8)}, "val has images of shape"),
        ({"val_labels": np.uint8(3)}, "val has images of shape"),
        ({"val_labels": np.full((6, 1), 2, dtype=np.uint8)}, "labels run from 0 to 2"),
        ({f"{split}_images": np.zeros((n, 28, 28, 28), dtype=np.uint8) for split, n in COUNTS.items()}, "volumes"),
        ({"val_labels": np.array([None] * 6)}, "Python objects"),
    ],
)
def test_other_formats(
    save: Callable[..., Path], data_settings: Settings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        medmnist(data_settings(name="medmnist", path=str(save(**changes))))


def test_absent_file_says_how_to_get_it(tmp_path: Path, data_settings: Settings) -> None:
    with pytest.raises(DataError, match=r"zenodo\.org/records/10519652/files/breastmnist\.npz.*data\.download=true"):
        medmnist(data_settings(name="medmnist", path=str(tmp_path / "breastmnist")))
    with pytest.raises(DataError, match="Did you mean 'breastmnist'"):
        medmnist(data_settings(name="medmnist", path=str(tmp_path / "brestmnist"), download=True))
    with pytest.raises(ConfigError, match=r"data\.path is empty"):
        medmnist(data_settings(name="medmnist"))


def test_table_is_complete() -> None:
    sums = [md5 for _, md5 in published().values()]
    assert len(set(sums)) == len(sums) == 4 * len(MEDMNIST) == 48
    assert all(len(md5) == 32 and set(md5) <= set("0123456789abcdef") for md5 in sums)
    assert all("," not in name for each in MEDMNIST.values() for name in each.classes)
    assert RECORD.startswith("https://")


@pytest.fixture
def server(save: Callable[..., Path]) -> Iterator[tuple[str, bytes]]:
    """Serve one file, and break off in the middle under /cut."""
    path = save()
    content = path.read_bytes()
    path.unlink()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/none"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:100] if self.path.startswith("/cut") else content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", content
        running.shutdown()
        thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, base: str, md5: str) -> None:
    """Stand the server in for Zenodo, with a table that knows its file."""
    known = MedMnist(("normal", "pneumonia"), (md5, "", "", ""))
    monkeypatch.setattr(module, "RECORD", base)
    monkeypatch.setattr(module, "published", lambda: {"pneumoniamnist": (known, md5)})
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_download_once_when_asked(
    tmp_path: Path, data_settings: Settings, server: tuple[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, content = server
    publish(monkeypatch, base, hashlib.md5(content).hexdigest())
    settings = data_settings(name="medmnist", path=str(tmp_path / "pneumoniamnist"), download=True)
    assert len(medmnist(settings)) == 34
    assert (tmp_path / "pneumoniamnist.npz").read_bytes() == content
    publish(monkeypatch, base + "/none", "")
    assert len(medmnist(settings)) == 34


@pytest.mark.parametrize(
    ("folder", "message"), [("", "Published is 00"), ("/cut", "Published is 00"), ("/none", "cannot be fetched")]
)
def test_failed_download_leaves_nothing(
    tmp_path: Path,
    data_settings: Settings,
    server: tuple[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    message: str,
) -> None:
    publish(monkeypatch, server[0] + folder, "00")
    with pytest.raises(DataError, match=message):
        medmnist(data_settings(name="medmnist", path=str(tmp_path / "pneumoniamnist"), download=True))
    assert list(tmp_path.iterdir()) == []
