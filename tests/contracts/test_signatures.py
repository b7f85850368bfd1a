"""Every model's attention can be measured: bounded, additive, fixed in meaning, and shown on its images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.attention.base import AttentionModel
from common.attention.blocks import SIMPLEX
from common.attention.distance import add_w, block_values
from common.attention.maps import attention_maps
from common.attention.prior import pool
from common.attention.projection import LONGEST
from common.attention.recorder import Recorder
from common.attention.signature import Signature, SignatureMeter, schema_of, signatures
from common.config import ModelSection
from common.models import BAG_MODELS, MODELS
from tests.fed_items import fed, noisy

ONCE = list({target: name for name, target in reversed(list(MODELS.items()))}.values())
SIZE, IMAGES, DRAWS = 32, 50, 50
"""50 random weightings of 50 images each: 2,500 cases per model, 10,000 over the first four models."""


def build(name: str, seed: int = 0, width: int = 8, channels: int = 1) -> AttentionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels, size = fed(name, channels, SIZE)
        return MODELS.load(name)(ModelSection(name=name, width=width), channels, 2, size).eval()


def noise(name: str, seed: int, count: int = IMAGES) -> Tensor:
    return noisy(name, count, 1, SIZE, seed)


def darker(name: str, images: Tensor) -> Tensor:
    """Another scanner; the marks of bags stay."""
    dark = images * 0.2 - 0.8
    return torch.where(images[:, :1] > 0, torch.cat([images[:, :1], dark[:, 1:]], 1), 0) if name in BAG_MODELS else dark


def unsettle(model: nn.Module, scale: float, seed: int) -> None:
    """Draw all weights anew, up to gates that saturate and attention that falls on one token."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for array in model.parameters():
            array.copy_(torch.randn(array.shape, generator=generator) * scale)


def measure(model: AttentionModel, images: Tensor, patients: list[str]) -> Signature:
    meter = SignatureMeter(model)
    for start in range(0, len(images), 4):
        meter.add(images[start : start + 4], patients[start : start + 4])
    return meter.finish()


@pytest.fixture(params=ONCE)
def name(request: pytest.FixtureRequest) -> str:
    torch.set_num_threads(1)
    return str(request.param)


def test_norm_is_at_most_one_for_any_weights_and_images(name):
    model = build(name)
    schema = schema_of(model)
    assert schema.entries <= LONGEST
    largest = 0.0
    for draw in range(DRAWS):
        unsettle(model, scale=10 ** (draw % 5 / 2 - 1.5), seed=draw)
        rows = signatures(model, noise(name, draw), schema)
        assert rows.shape == (IMAGES, schema.length)
        assert rows.isfinite().all()
        assert rows.min() >= 0
        largest = max(largest, float(rows.norm(dim=1).max()))
    assert 0.4 < largest <= 1 + 1e-12


def test_every_site_fires_and_nothing_stays_behind(name):
    model = build(name).train()
    logits = model(noise(name, 1, 3))
    with Recorder(model) as recorder:
        model(noise(name, 1, 3))
        assert list(recorder.take()) == [site.name for site in model.attention_sites]
    assert all(not layer._forward_hooks and not getattr(layer, "explicit", False) for layer in model.modules())
    assert model(noise(name, 1, 3)).equal(logits)


def test_blocks_are_distributions_or_lie_in_the_unit_interval(name):
    model = build(name)
    schema = schema_of(model, cap=10_000)
    mean = signatures(model, noise(name, 2), schema).mean(0).numpy()
    for block, values in zip(schema.blocks, schema.split(mean).values(), strict=True):
        assert values.min() >= 0
        assert values.max() <= 1 + 1e-6
        if block.kind in SIMPLEX:
            assert values.sum() == pytest.approx(1, abs=1e-5)
    projected = np.concatenate(list(block_values(schema, mean).values()))
    np.testing.assert_allclose(projected, np.concatenate(list(schema.split(mean).values())), atol=1e-5)


def test_signatures_see_the_images_and_the_weights(name):
    model, schema = build(name), schema_of(build(name))
    rows = signatures(model, noise(name, 3), schema)
    assert (rows - rows[0]).norm(dim=1)[1:].min() > 1e-5
    other = signatures(build(name, seed=1), noise(name, 3), schema)
    assert (rows - other).norm(dim=1).min() > 1e-4


def test_patients_and_sites_add(name):
    model, images = build(name), noise(name, 4, 12)
    patients = [f"p{i % 5}" for i in range(12)]
    rows = signatures(model, images).numpy()
    means = np.stack([rows[[i for i in range(12) if i % 5 == p]].mean(0) for p in range(5)])
    whole = measure(model, images, patients)
    assert whole.patients == 5
    np.testing.assert_allclose(whole.total, means.sum(0), atol=1e-5)
    np.testing.assert_allclose(whole.squares, (means**2).sum(0), atol=1e-5)
    turned = measure(model, images.flip(0), patients[::-1])
    np.testing.assert_allclose(turned.total, whole.total, atol=1e-5)
    here = [i for i in range(12) if i % 5 < 2]
    there = [i for i in range(12) if i % 5 >= 2]
    parts = [measure(model, images[index], [patients[i] for i in index]) for index in (here, there)]
    both = parts[0] + parts[1]
    np.testing.assert_allclose(both.total, whole.total, atol=1e-5)
    np.testing.assert_allclose(both.squares, whole.squares, atol=1e-5)
    assert pool(parts).patients == 5
    np.testing.assert_allclose(pool(parts).mean, means.mean(0), atol=1e-5)
    np.testing.assert_allclose(pool(parts).variance, means.var(0), atol=1e-5)


def test_one_image_changes_the_sums_by_at_most_one(name):
    model, images = build(name), noise(name, 5, 9)
    patients = [f"p{i}" for i in range(9)]
    whole = measure(model, images, patients)
    for left_out in range(9):
        kept = [i for i in range(9) if i != left_out]
        less = measure(model, images[kept], [patients[i] for i in kept])
        assert np.linalg.norm(whole.total - less.total) <= 1 + 1e-5
        assert np.linalg.norm(whole.squares - less.squares) <= 1 + 1e-5


def test_a_darker_scanner_lies_further_away_than_other_patients(name):
    model, schema = build(name), schema_of(build(name))
    unsettle(model, scale=1.0, seed=0)  # fresh weights of a transformer look everywhere alike, whatever the image
    here, also_here = (measure(model, noise(name, seed, 40), [f"p{i}" for i in range(40)]).mean for seed in (6, 7))
    dark = measure(model, darker(name, noise(name, 6, 40)), [f"p{i}" for i in range(40)]).mean
    assert add_w(schema, here, dark) > add_w(schema, here, also_here) > 0


def test_maps_lie_on_the_image(name):
    model = build(name)
    maps = attention_maps(model, noise(name, 8, 3))
    assert list(maps) == ([] if name in BAG_MODELS else [site.name for site in model.attention_sites])
    for found in maps.values():
        assert found.shape == (3, SIZE, SIZE)
        assert found.min() >= 0
        torch.testing.assert_close(found.sum((1, 2)), torch.ones(3))


def test_schema_ids_differ_between_models_and_settings():
    ids = [
        schema_of(build(name, width=width, channels=channels)).id
        for name in ONCE
        for width in (8, 16)
        for channels in (1, 3)
    ]
    assert len(set(ids)) == len(ids)


def test_schema_ids_are_the_same_in_another_process():
    code = (
        "from common.attention.schema import schema_of\n"
        "from common.config import ModelSection\n"
        "from common.models import MODELS\n"
        f"for name, (channels, size) in {[(name, fed(name, 1, SIZE)) for name in ONCE]}:\n"
        "    print(schema_of(MODELS.load(name)(ModelSection(name=name, width=8), channels, 2, size)).id)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.split() == [schema_of(build(name)).id for name in ONCE]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu_and_bfloat16_stays_near(name):
    model, images = build(name), noise(name, 9, 8)
    plain = signatures(model, images)
    model, images = model.cuda(), images.cuda()
    there = signatures(model, images)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), plain, atol=2e-3, rtol=0)
    with torch.autocast("cuda", torch.bfloat16):
        mixed = signatures(model, images)
    assert (mixed.cpu() - plain).norm(dim=1).max() < 0.05
    assert all(found.is_cuda for found in attention_maps(model, images).values())
