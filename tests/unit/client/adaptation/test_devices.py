"""Every method on a GPU, against itself on the CPU."""

import pytest
import torch

from client.adaptation import ADAPTATIONS
from client.adaptation.build import build_adaptation
from client.adaptation.measure import measure_source
from common.config import ModelSection, TaskSection
from common.models.build import build_model
from common.tasks.build import build_task
from tests.unit.client.adaptation.test_measure import data

QUICK = {"views": 3, "population": 4, "capacity": 4, "every": 2}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ADAPTATIONS)
def test_it_answers_there_as_here(name):
    method = ADAPTATIONS.load(name)
    task = build_task(TaskSection(name="multiclass", positive=""), ("a", "b", "c"), ())
    settings = ModelSection(name="vit" if name == "foa" else "se-convnet", width=8, batch_norm=name == "bn-adapt")
    model = build_model(settings, 1, 3, 16, seed=0).eval()
    source = measure_source(model, task, data(40), method.needs)
    values = {key: value for key, value in QUICK.items() if key in method.Settings.model_fields}
    images = data(12, seed=5).batch(torch.arange(12).numpy(), torch.device("cpu")).images
    here = [build_adaptation(name, model, source, values).adapt(batch) for batch in images.split(6)]
    there = [build_adaptation(name, model.cuda(), source, values).adapt(batch.cuda()) for batch in images.split(6)]
    for one, two in zip(here, there, strict=True):
        torch.testing.assert_close(one, two.cpu(), rtol=1e-2, atol=1e-2)
