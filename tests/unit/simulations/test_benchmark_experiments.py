"""The experiments of the public benchmarks, each with a tiny folder of its kind; a user gives the folder alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.federation import open_federation
from common.tasks.build import build_task
from simulations.experiment import load_experiment
from simulations.generalise.benchmark import load_benchmark
from tests import benchmark_folders

MAKERS: dict[str, Callable[[Path], object]] = {
    "fed-isic2019": benchmark_folders.isic,
    "fed-camelyon16": benchmark_folders.camelyon16,
    "fed-ixi": benchmark_folders.ixi,
    "fed-kits19": benchmark_folders.kits,
    "wilds-camelyon17": benchmark_folders.wilds,
}


@pytest.mark.parametrize("name", MAKERS)
def test_experiment_opens_the_benchmark_and_its_task_takes_it(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path)
    changes = [f"data.path={tmp_path}", "data.image-size=16", "data.max-instances=8"]
    config = load_experiment(name, changes).config
    assert load_benchmark(name, changes).base.config.data == config.data
    federation = open_federation(config.data)
    task = build_task(config.task, federation.classes, federation.mask_classes)
    for site in federation.sites:
        assert len(task.prepare(site.train)) == len(site.train) > 0
    held_out = [site.name for site in federation.sites if site.role == "held-out"]
    assert held_out == (["hospital-1", "hospital-2"] if name == "wilds-camelyon17" else [])
    assert load_benchmark(name).protocol == ("held-out" if held_out else "leave-one-site-out")
