"""The app that hospitals receive: the three audited folders, everything in them, and nothing else."""

import io
import os
import subprocess
import sys
import warnings
import zipfile

import pytest
from flwr.cli.build import build_fab_from_disk

FOLDERS = ("server", "client", "common")
BESIDE = {"pyproject.toml", "LICENSE", ".info/CONTENT"}
LOAD_EVERYTHING = """
import sys
from pathlib import Path
import server.app, client.app, common, server.cli, client.cli
from common.config import load_run_config
from common.data import DATASETS
from common.metrics import METRICS
from common.models import MODELS
from common.tasks import TASKS
from server.strategies import STRATEGIES
here = Path.cwd()
for family in (DATASETS, METRICS, MODELS, TASKS, STRATEGIES):
    for name in family:
        family.load(name)
load_run_config()
ours = [m for n, m in sys.modules.items() if n.split(".")[0] in ("server", "client", "common") and m.__file__]
assert all(Path(module.__file__).is_relative_to(here) for module in ours), "code from elsewhere"
assert "simulations" not in sys.modules and "ray" not in sys.modules
print(type(server.app.app).__name__, type(client.app.app).__name__)
"""


@pytest.fixture(scope="module")
def fab(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a library that Flower uses
        return build_fab_from_disk(request.config.rootpath)


def test_it_holds_the_audited_files_and_nothing_else(fab, root):
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        names = archive.namelist()
    sources = {
        path.relative_to(root).as_posix()
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(names) == sources | BESIDE
    assert len(names) == len(set(names))


def test_its_files_are_those_of_the_repository(fab, root):
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        for name in archive.namelist():
            if name.startswith(FOLDERS):
                assert archive.read(name) == (root / name).read_bytes()


def test_it_is_small(fab):
    """Flower's own limit is 10 MB."""
    assert len(fab) < 2_000_000


def test_unpacked_it_loads_every_part_without_the_rest_of_the_repository(fab, tmp_path):
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_EVERYTHING],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ServerApp", "ClientApp"]
