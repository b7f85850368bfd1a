"""The engine against a loop written by hand (the benchmark's yardstick): the same bits, round after round."""

from pathlib import Path

import numpy as np
import pytest

from common.config import load_run_config
from server.history import POOLED, RoundRecord
from simulations.engine import Training, train
from tests.benchmarks import bare, workload


@pytest.mark.parametrize("model", ["vit-tiny", "se-convnet"])
def test_federated_averaging_is_the_loop_by_hand(model: str, tmp_path: Path) -> None:
    size = workload.Size(sites=3, train=70, val=21)
    workload.write(tmp_path / "few.npz", size)
    changes = {"model.name": model, "model.width": 4}
    settings = workload.settings(tmp_path / "few.npz", 3) | changes
    expected, losses = bare.run(tmp_path / "few.npz", settings, workers=1)
    records: list[RoundRecord] = []
    sites = tuple((f"site-{index}",) for index in range(size.sites))
    found = train(Training("few", load_run_config(settings), sites), records.append, workers=2)
    assert expected.keys() == found.arrays.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)
    np.testing.assert_allclose([record.evaluation[POOLED]["loss"] for record in records], losses, rtol=1e-6)
    assert losses[2] != losses[1] != losses[0]
