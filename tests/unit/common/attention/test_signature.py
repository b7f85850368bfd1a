"""The signature is what its equations say: bounded, per patient, additive, and never mixed across schemas."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common.attention.blocks import SIMPLEX, site_blocks
from common.attention.recorder import Recorder
from common.attention.schema import Schema
from common.attention.signature import Signature, SignatureMeter, choose_images, schema_of, signatures
from common.errors import AttentionError, DataError, ProtocolError


def test_every_block_is_a_distribution_or_lies_in_the_unit_interval(model, images):
    schema = schema_of(model, cap=99)
    rows = signatures(model, images, schema).numpy()
    assert rows.shape == (5, schema.length)
    for row in rows:
        for block, values in zip(schema.blocks, schema.split(row).values(), strict=True):
            assert values.min() >= 0
            assert values.max() <= 1 + 1e-6
            if block.kind in SIMPLEX:
                assert values.sum() == pytest.approx(1, abs=1e-5)
    assert sum(weight**2 for weight in schema.weights) == pytest.approx(1)


def test_leaves_modes_gradients_and_dropout_as_they_were(gated_class, images):
    model = gated_class().train()
    model.stem.eval()
    first = signatures(model, images)
    assert model.training
    assert not model.stem.training
    assert model.drop.training
    assert not first.requires_grad
    assert first.equal(signatures(model.eval(), images))


def test_streams_equal_blocks_from_the_whole_recording(tokens_class, images):
    model = tokens_class().eval()
    schema = schema_of(model)
    with torch.no_grad(), Recorder(model) as recorder:
        model(images)
        maps = recorder.take()
    sites = {site.name: site for site in model.attention_sites}
    for block in schema.blocks:
        if block.chained:  # of several layers: test_rolled_map.py
            continue
        direct = site_blocks(sites[block.site], maps[block.site], [block.name])[block.name]
        part = signatures(model, images)[:, block.start : block.start + block.size] / block.scale
        torch.testing.assert_close(part.float(), direct)


def test_one_image_at_a_time_equals_the_batch(model, images):
    together = signatures(model, images)
    alone = torch.cat([signatures(model, image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_autocast_changes_little_and_keeps_the_bound(model, images):
    plain = signatures(model, images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = signatures(model, images)
    assert mixed.dtype == torch.float64
    assert (mixed - plain).norm(dim=1).max() < 0.05
    for row in mixed.numpy():
        schema = schema_of(model)
        for block, values in zip(schema.blocks, schema.split(row).values(), strict=True):
            if block.kind in SIMPLEX:
                assert values.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu(model, images):
    plain = signatures(model, images)
    there = signatures(model.cuda(), images.cuda())
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), plain, atol=1e-3, rtol=0)


def test_patient_mean_by_hand(model, images):
    rows = signatures(model, images).numpy()
    meter = SignatureMeter(model)
    meter.add(images[:2], ["a", "b"])
    meter.add(images[2:], np.array(["a", "a", "c"]))
    found = meter.finish()
    means = np.stack([rows[[0, 2, 3]].mean(0), rows[1], rows[4]])
    assert found.patients == 3
    np.testing.assert_allclose(found.total, means.sum(0), atol=1e-6)
    np.testing.assert_allclose(found.squares, (means**2).sum(0), atol=1e-6)
    np.testing.assert_allclose(found.mean, means.mean(0), atol=1e-6)


def test_sites_add(model, images):
    def measure(*ranges):
        meter = SignatureMeter(model)
        for start, stop in ranges:
            meter.add(images[start:stop], [f"p{i}" for i in range(start, stop)])
        return meter.finish()

    whole, parts = measure((0, 5)), measure((0, 2)) + measure((2, 5))
    assert parts.patients == whole.patients == 5
    np.testing.assert_allclose(parts.total, whole.total, atol=1e-6)
    np.testing.assert_allclose(parts.squares, whole.squares, atol=1e-6)
    one_less = measure((0, 4))
    assert np.linalg.norm(whole.total - one_less.total) <= 1
    assert np.linalg.norm(whole.squares - one_less.squares) <= 1
    empty = measure()
    assert empty.patients == 0
    np.testing.assert_array_equal((whole + empty).total, whole.total)
    with pytest.raises(DataError, match="no patients has no mean"):
        _ = empty.mean


def test_refuses_what_does_not_belong_together(model, images):
    meter = SignatureMeter(model)
    with pytest.raises(DataError, match="5 images come with 2 patients"):
        meter.add(images, ["a", "b"])
    found = meter.finish()
    other = Signature("f" * 64, 0, found.total, found.squares)
    with pytest.raises(ProtocolError, match="Only equal"):
        found + other
    with pytest.raises(ProtocolError, match="not finite"):
        Signature("a", 1, np.array([np.nan]), np.array([0.0]))
    with pytest.raises(ProtocolError, match="not finite"):
        Signature("a", 1, np.array([0.0]), np.array([np.inf]))
    with pytest.raises(ProtocolError, match="two vectors of one length"):
        Signature("a", 1, np.zeros(3), np.zeros(2))
    with pytest.raises(ProtocolError, match="-1 patients"):
        Signature("a", -1, np.zeros(2), np.zeros(2))


def test_core_set_is_early_middle_late_and_at_most_eight(tokens_class, gated_class):
    deep = schema_of(tokens_class(layers=6))
    assert [block.label for block in deep.blocks] == [
        "layer0/cls_map",
        "layer0/ent_hist",
        "layer2/cls_map",
        "layer2/ent_hist",
        "layer5/cls_map",
        "layer5/roll_map",
        "layer5/ent_hist",
        "layer5/dist_hist",
    ]
    assert deep.length == 4 * 16 + 3 * 6 + 8
    mixed = schema_of(gated_class())
    assert len(mixed.blocks) == 8
    assert mixed.sites == ("se", "where", "gate")
    assert [block.start for block in mixed.blocks] == np.cumsum([0, *(b.size for b in mixed.blocks)])[:-1].tolist()
    assert [b.name for b in schema_of(tokens_class(layers=1, cls=False)).blocks] == [
        "received_map",
        "ent_hist",
        "dist_hist",
        "head_div",
        "sink",
        "head_ent",
        "head_dist",
    ]


def test_id_fixes_the_meaning(tokens_class, gated_class):
    base = tokens_class()
    assert schema_of(base).id == schema_of(tokens_class()).id  # other weights, same meaning
    variants = [
        schema_of(tokens_class(layers=3)),
        schema_of(tokens_class(heads=4)),
        schema_of(tokens_class(cls=False)),
        schema_of(tokens_class(size=32)),
        schema_of(gated_class()),
        schema_of(gated_class(7)),
        schema_of(base, cap=4),
    ]
    assert len({schema.id for schema in (schema_of(base), *variants)}) == 8


def test_id_is_the_same_in_another_process():
    code = (
        "import sys; sys.path[:0] = ['.']\n"
        "from torch import nn\n"
        "from common.attention.base import AttentionModel, AttentionSite\n"
        "from common.attention.schema import schema_of\n"
        "class Small(AttentionModel):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.gate = nn.Linear(4, 4)\n"
        "        self.attention_sites = (AttentionSite('g', 'channel-gate', 'gate'),)\n"
        "print(schema_of(Small()).id)"
    )
    root = Path(__file__).parents[4]
    ids = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": str(seed), "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(ids) == 1
    assert len(ids.pop().strip()) == 64


def test_split_refuses_another_length(gated_class):
    schema = schema_of(gated_class())
    assert isinstance(schema, Schema)
    with pytest.raises(AttentionError, match=r"shape \(3,\)"):
        schema.split(np.zeros(3))


def test_chooses_the_same_patients_in_any_order():
    names = np.array([f"p{i % 40}" for i in range(200)])
    chosen = choose_images(names, images_per_patient=3, max_patients=10, seed=7)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    patients, counts = np.unique(names[chosen], return_counts=True)
    assert len(patients) == 10
    assert (counts == 3).all()
    order = np.argsort(names, kind="stable")  # rows regrouped, each patient's own images in their order
    regrouped = choose_images(names[order], 3, 10, 7)
    assert sorted(order[regrouped]) == chosen.tolist()
    shuffled = np.random.default_rng(0).permutation(200)
    assert set(names[shuffled][choose_images(names[shuffled], 3, 10, 7)]) == set(patients)
    assert set(names[choose_images(names, 3, 10, 8)]) != set(patients)
    assert choose_images(names, 99, 99, 7).tolist() == list(range(200))
    assert set(choose_images(names, 1, 40, 7)) <= set(choose_images(names, 2, 40, 7))
