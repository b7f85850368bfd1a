"""The same round on a GPU: same contracts, results close to the CPU's. Skipped where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client.signature import measure
from client.training import train
from common.arrays import model_arrays, read_arrays
from common.config import RunConfig, load_run_config
from common.data.federation import open_federation
from common.device import choose_device
from common.models import MODELS
from common.models.build import build_model
from common.tasks.build import build_task
from server.history import RoundRecord
from simulations.engine import Training, choose_workers
from simulations.engine import train as run_training

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def small(**changes: object) -> RunConfig:
    return load_run_config(
        {"rounds": 2, "data.patients-per-site": 8, "data.image-size": 32, "attention.every": 1, **changes}
    )


def groups(config: RunConfig) -> tuple[tuple[str, ...], ...]:
    return tuple((site.name,) for site in open_federation(config.data).sites[:3])


def test_auto_takes_the_gpu_and_one_process() -> None:
    assert choose_device("auto").type == "cuda"
    assert choose_workers(small(), None, 6) == 0


def test_federated_training_on_the_gpu_is_close_to_the_cpu() -> None:
    states = {}
    for device in ("cpu", "cuda"):
        config = small(**{"train.device": device})
        states[device] = run_training(Training("t", config, groups(config)), lambda record: None, workers=0)
    for name, array in states["cpu"].arrays.items():
        np.testing.assert_allclose(states["cuda"].arrays[name], array, atol=5e-3, err_msg=name)
    prior = {device: state.prior for device, state in states.items()}
    assert prior["cpu"] is not None
    assert prior["cuda"] is not None
    np.testing.assert_allclose(prior["cuda"].mean, prior["cpu"].mean, atol=1e-3)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", ["fedrep", "ditto", "mr-mtl", "apfl"])
def test_models_of_a_sites_own_train_on_the_gpu(name: str, amp: bool, tmp_path: Path) -> None:
    changes = {"strategy.name": name, "train.amp": amp, "train.device": "cuda", "model.batch-norm": True}
    config = small(**changes, out=str(tmp_path))
    records: list[RoundRecord] = []
    run_training(Training("t", config, groups(config)), records.append, workers=0)
    assert not any(record.failures for record in records)
    tables = [read_arrays(path)[0] for path in tmp_path.rglob("local-000002.safetensors")]
    assert len(tables) == 3
    assert all(np.isfinite(array).all() for table in tables for array in table.values())


def test_the_gpu_repeats_itself() -> None:
    config = small(**{"train.device": "cuda"})
    first, second = (run_training(Training("t", config, groups(config)), lambda record: None, workers=0) for _ in "ab")
    for name, array in first.arrays.items():
        np.testing.assert_allclose(second.arrays[name], array, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_trains_and_is_measured_on_the_gpu(name: str, amp: bool) -> None:
    task_name = "segmentation" if name == "attention-unet" else "binary"
    config = small(**{"model.name": name, "task.name": task_name, "train.amp": amp, "train.device": "cuda"})
    federation = open_federation(config.data)
    task = build_task(config.task, federation.classes, federation.mask_classes)
    model = build_model(config.model, 1, task.outputs, federation.image_size, 1, dense=task.dense).cuda()
    before = model_arrays(model)
    data = task.prepare(federation.sites[0].train)
    trained = train(model, task, data, config.train, seed=3)
    assert np.isfinite(trained.loss_sum)
    after = model_arrays(model)
    assert all(np.isfinite(array).all() for array in after.values())
    assert any(not np.array_equal(after[key], before[key]) for key in before)
    signature = measure(model, data, config.attention, seed=1)[0]
    assert signature is not None
    assert np.linalg.norm(signature.mean) <= 1 + 1e-6
