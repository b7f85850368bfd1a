"""`flwr run .` for real: a SuperLink on loopback, the app bundle, Ray; and the same arrays as in-process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from common.config import load_run_config
from common.data.federation import open_federation
from server.checkpoint import load_checkpoint
from simulations.engine import Training, train

pytest.importorskip("ray", reason="Ray is not installed: consilium-fl[cluster]")
pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
SETTINGS = {"rounds": 2, "data.patients-per-site": 8, "train.device": "cpu", "attention.every": 1}
SECONDS = 180


@dataclass
class Flower:
    """A SuperLink of this test's own, and a copy of what `flwr run` reads."""

    app: Path
    environment: dict[str, str]

    def flwr(self, *words: str) -> str:
        command = ["flwr", *words]
        done = subprocess.run(command, cwd=self.app, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, nodes: int, out: str) -> tuple[str, str]:
        """Run to the end; gives the status and what the run logged."""
        values = " ".join(f"{key}={json.dumps(value)}" for key, value in {**SETTINGS, "out": out}.items())
        cores = f"num-supernodes={nodes} client-resources-num-cpus=1"
        told = json.loads(
            self.flwr("run", ".", "test", "--federation-config", cores, "--run-config", values, "--format", "json")
        )
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            runs = json.loads(self.flwr("ls", "test", "--format", "json"))["runs"]
            status = next(run["status"] for run in runs if run["run-id"] == str(told["run-id"]))
            if status.startswith("finished"):
                return status, self.flwr("log", str(told["run-id"]), "test", "--show")
            time.sleep(1)
        raise AssertionError(f"still {status} after {SECONDS} seconds")


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    folder = tmp_path_factory.mktemp("flower")
    app = folder / "app"
    app.mkdir()
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, app)
    for name in ("server", "client", "common"):
        shutil.copytree(ROOT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "test"\n[superlink.test]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = {
        **os.environ,
        "FLWR_HOME": str(folder / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
    }
    words = f"flower-superlink --insecure --simulation --host 127.0.0.1 --port {port}".split()
    with (folder / "superlink.log").open("w") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _await(port, process)
        yield Flower(app, environment)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError("the SuperLink did not start")


def test_flwr_run_gives_what_the_in_process_engine_gives(flower: Flower, tmp_path: Path) -> None:
    config = load_run_config({**SETTINGS, "out": ""})
    sites = open_federation(config.data).sites
    before = (flower.app / "pyproject.toml").read_bytes()
    status, log = flower.run(len(sites), str(tmp_path / "run"))
    assert status == "finished:completed", log
    assert "round 2: " in log
    checkpoint = load_checkpoint(tmp_path / "run", config.digest())
    assert checkpoint is not None
    assert checkpoint.round == 2
    here = train(Training("here", config, tuple((site.name,) for site in sites)), lambda record: None, workers=2)
    for name, array in here.arrays.items():
        np.testing.assert_allclose(checkpoint.arrays[name], array, rtol=0, atol=1e-6, err_msg=name)
    assert (flower.app / "pyproject.toml").read_bytes() == before


def test_flwr_run_with_too_few_nodes_fails_and_says_so(flower: Flower, tmp_path: Path) -> None:
    status, log = flower.run(2, str(tmp_path / "run"))
    assert status == "finished:failed"
    assert "site-count" in log
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
