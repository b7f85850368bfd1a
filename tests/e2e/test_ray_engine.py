"""Ray and the in-process engine give the same arrays, prior and history, and one goes on where the other stopped."""

import gc
import os
import threading
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from common.config import RunConfig, load_run_config
from common.data.archive import write_archive
from common.data.base import Dataset
from common.errors import AggregationError
from common.privacy.budget import Budget
from common.privacy.ledger import opened
from server.checkpoint import Checkpoint
from server.history import RoundRecord
from server.rounds import Stopped
from simulations.engine import Training, train
from simulations.ray_engine import train_on_ray

pytest.importorskip("ray", reason="Ray is not installed: consilium-fl[cluster]")
# Ray forgets the processes that it started and ended, which Python reports when it forgets them too.
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
# Groups of a pooled site, a single one and a held-out one: 64 images of 16 pixels each.
GROUPS = (("site-0", "site-1"), ("site-2",), ("site-3",))


@pytest.fixture(autouse=True)
def forget_ray() -> Iterator[None]:
    yield
    gc.collect()


def config(folder: Path, name: str, **changes: object) -> RunConfig:
    random = np.random.default_rng(5)
    labels = random.integers(0, 2, 256)
    images = (random.integers(0, 128, (256, 1, 16, 16)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    path = folder / "four-sites.npz"
    if not path.exists():
        write_archive(
            path,
            Dataset(
                name="four-sites",
                images=images,
                labels=labels,
                patients=np.array([f"p{index // 2}" for index in range(256)]),
                sites=np.repeat(np.arange(4), 64),
                site_names=tuple(f"site-{index}" for index in range(4)),
                classes=("no", "yes"),
            ),
        )
    settings = {
        "rounds": 3,
        "out": str(folder / name),
        "data.name": "archive",
        "data.path": str(path),
        "data.image-size": 0,
        "data.held-out": "site-3",
        "model.width": 8,
        "train.device": "cpu",
        "strategy.name": "fedbn",
        "attention.every": 1,
    }
    return load_run_config(settings | changes)


def same(one: Checkpoint, two: Checkpoint) -> None:
    assert one.arrays.keys() == two.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_allclose(array, two.arrays[name], rtol=0, atol=1e-6, err_msg=name)
    assert one.prior is not None
    assert two.prior is not None
    for first, second in zip(astuple(one.prior), astuple(two.prior), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy.name": "fedbn"},
        {"strategy.name": "scaffold"},
        {"strategy.name": "fedproto"},
    ],
    ids=lambda changes: str(changes["strategy.name"]),
)
def test_ray_gives_what_the_in_process_engine_gives(tmp_path: Path, changes: dict[str, object]) -> None:
    """Also where a site keeps something between rounds, and where it tells more than an update."""
    before = dict(os.environ)
    history: dict[str, list[RoundRecord]] = {"here": [], "ray": []}
    here = train(Training("here", config(tmp_path, "here", **changes), GROUPS), history["here"].append, workers=2)
    ray = train_on_ray(Training("ray", config(tmp_path, "ray", **changes), GROUPS), history["ray"].append, workers=2)
    same(here, ray)
    assert here.state.keys() == ray.state.keys()
    for name, array in here.state.items():
        np.testing.assert_allclose(array, ray.state[name], rtol=0, atol=1e-5, err_msg=name)
    assert history["here"] == history["ray"]
    assert len(history["ray"]) == 3
    assert dict(os.environ) == before


def test_a_run_stopped_on_ray_goes_on_in_process(tmp_path: Path) -> None:
    whole = train(Training("whole", config(tmp_path, "whole"), GROUPS), lambda record: None, workers=0)
    begun = Training("begun", config(tmp_path, "begun"), GROUPS)
    stop = threading.Event()
    with pytest.raises(Stopped):
        train_on_ray(begun, lambda record: stop.set(), stop, workers=2)
    records: list[RoundRecord] = []
    same(whole, train(begun, records.append, workers=2))
    assert [record.round for record in records] == [1, 2, 3]


def test_an_error_of_the_run_comes_out_as_itself(tmp_path: Path) -> None:
    few = Training("few", config(tmp_path, "few", **{"cohort.quorum": 3}), GROUPS)
    with pytest.raises(AggregationError, match="quorum"):
        train_on_ray(few, lambda record: None, workers=1)


FOUR = (("site-0",), ("site-1",), ("site-2",), ("site-3",))


def protected(folder: Path, name: str, **changes: object) -> RunConfig:
    settings = {
        "data.held-out": "",
        "strategy.name": "fedavg",
        "secure-aggregation.enabled": True,
        "secure-aggregation.ring-bits": 64,
        "cohort.quorum": 3,
    }
    return config(folder, name, **settings, **changes)


def test_a_secure_sum_on_ray_is_that_of_the_in_process_engine(tmp_path: Path) -> None:
    """Rounding is random, so that the two agree to the ring's resolution and not to the bit."""
    ends = [
        engine(Training(name, protected(tmp_path, name), FOUR), lambda record: None, workers=2)
        for engine, name in ((train, "here"), (train_on_ray, "ray"))
    ]
    for name, array in ends[0].arrays.items():
        np.testing.assert_allclose(array, ends[1].arrays[name], rtol=0, atol=1e-4, err_msg=name)


def test_privacy_and_secure_sums_on_ray_keep_a_ledger(tmp_path: Path) -> None:
    changes = {
        "privacy.mechanism": "skellam",
        "privacy.placement": "distributed",
        "privacy.epsilon": 20.0,
        "privacy.sampling-probability": 0.5,
        "privacy.fewest-patients": 5,
        "privacy.signature-noise-multiplier": 2.0,
        "privacy.distance-noise-multiplier": 10.0,
    }
    records: list[RoundRecord] = []
    end = train_on_ray(Training("ray", protected(tmp_path, "ray", **changes), FOUR), records.append, workers=2)
    assert end.round == 3
    assert not any(record.failures for record in records)
    for site in ("site-0", "site-3"):
        with opened(tmp_path / "ray" / "sites" / site / "ledger", Budget(20.0, 1e-5)) as ledger:
            assert 0 < ledger.spend().epsilon <= 20.0
            assert len(ledger.entries()) == 7
