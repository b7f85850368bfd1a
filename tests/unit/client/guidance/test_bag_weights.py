"""Guidance of weights that choose among the instances of a bag, of a model of bags and of one that pools so."""

import numpy as np
import pytest
import torch

from client.guidance.base import Known
from client.guidance.guidance import Guidance
from client.guidance.teacher import divergence
from common.attention.base import AttentionSite
from common.attention.prior import Prior
from common.attention.schema import schema_of
from common.attention.signature import signatures
from common.config import load_run_config
from common.data.base import Batch
from common.models.build import build_model
from tests.fed_items import fed, noisy

SITE = AttentionSite("pool", "pooling", "pool.weights")


def test_divergence_of_bags_by_hand():
    wanted, found = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]])
    expected = torch.tensor([0.5 * np.log(2), 0.0], dtype=torch.float32)
    torch.testing.assert_close(divergence(SITE, wanted, found), expected, atol=2e-5, rtol=0)
    groups = divergence(SITE, torch.stack([wanted, wanted[[1, 1]]]), torch.stack([found, found[[1, 1]]]))
    torch.testing.assert_close(groups, torch.stack([expected.mean(), torch.tensor(0.0)]), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("name", "attention"), [("abmil", ""), ("abmil", "token-pooling"), ("convnet", "abmil")])
@pytest.mark.parametrize("term", ["teacher", "alignment", "band", "adversary"])
def test_a_term_moves_the_weights(name, attention, term):
    channels, size = fed(name, size=16)
    section = load_run_config({"model.name": name, "model.attention": attention, "model.width": 4}).model
    model, teacher = (build_model(section, channels, 1, size, seed=seed) for seed in (1, 2))
    schema = schema_of(model)
    rows = signatures(model, noisy(name, 40, size=16, seed=5), schema).numpy()
    prior = Prior(schema.id, 40, rows.mean(0) + 0.1, rows.var(0) / 10)
    known = Known(
        model=teacher, schema=schema, prior=prior, own=rows.mean(0), classes=rows[:2], flips=False, progress=0.5, seed=3
    )
    batch = Batch(noisy(name, 6, size=16), torch.arange(6) % 2, None)
    with Guidance(known, {term: 1.0}).watching(model) as guide:
        model(batch.images)
        loss = guide(batch)
    assert loss.isfinite().all()
    loss.sum().backward()
    assert model.pool.get_parameter(score_of(model)).grad.abs().max() > 0


def score_of(model):
    return next(key for key, _ in model.pool.named_parameters() if key.endswith("score.weight"))
