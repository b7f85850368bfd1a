"""Orientation: a group of eight, and a mirrored hospital whose attention adds up with the others' again."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from common.attention.signature import signatures
from common.config import DataSection, ModelSection, load_run_config
from common.data import DATASETS
from common.data.federation import open_federation
from common.data.orientation import TURNS, oriented
from common.models import MODELS

INVERSE = {"rot90": "rot270", "rot270": "rot90"}


@pytest.fixture(scope="module")
def dataset():
    settings = load_run_config({"data.patients-per-site": 4, "data.image-size": 32}).data
    return DATASETS.load("phantom")(settings)


def test_the_setting_names_every_turn():
    assert set(get_args(DataSection.model_fields["orientation"].annotation)) == set(TURNS)


@pytest.mark.parametrize("name", TURNS)
def test_each_turn_has_an_inverse_and_turns_masks_along(name, dataset):
    there = oriented(dataset, name)
    back = oriented(there, INVERSE.get(name, name))
    assert np.array_equal(back.images, dataset.images)
    assert np.array_equal(back.masks, dataset.masks)
    assert there.images.flags.c_contiguous
    inside = (dataset.masks > 0)[:, None]
    assert np.array_equal(np.sort(there.images[(there.masks > 0)[:, None]]), np.sort(dataset.images[inside]))


def test_the_turns_are_the_eight_symmetries_of_a_square():
    corner = np.arange(9).reshape(3, 3)
    assert len({turn(corner).tobytes() for turn in TURNS.values()}) == 8


def test_by_hand():
    square = np.array([[1, 2], [3, 4]])
    assert TURNS["rot90"](square).tolist() == [[2, 4], [1, 3]]
    assert TURNS["transpose"](square).tolist() == [[1, 3], [2, 4]]
    assert TURNS["transverse"](square).tolist() == [[4, 2], [3, 1]]


def test_a_mirrored_hospital_has_the_signature_of_the_unmirrored_one(dataset):
    torch.manual_seed(0)
    model = MODELS.load("cbam-resnet")(ModelSection(name="cbam-resnet", width=8), 1, 2, 32).eval()
    stored = replace(dataset, images=np.ascontiguousarray(dataset.images[..., ::-1]), masks=None)
    rows = [
        signatures(model, torch.from_numpy(each.images[:8]).float() / 127.5 - 1)
        for each in (dataset, oriented(stored, "flip-lr"), stored)
    ]
    assert torch.equal(rows[0], rows[1])
    assert (rows[0] - rows[2]).norm(dim=1).min() > 1e-3


def test_a_federation_opens_turned():
    small = {"data.patients-per-site": 4, "data.image-size": 32}
    plain = open_federation(load_run_config(small).data).sites[0].train.images
    turned = open_federation(load_run_config({**small, "data.orientation": "rot90"}).data).sites[0].train.images
    assert np.array_equal(np.rot90(plain, 1, (-2, -1)), turned)
