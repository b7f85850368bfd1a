"""Bags from files: what is kept, what stands for nothing, and everything that is no bag."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import load_run_config
from common.config_checks import check_items
from common.data.bag_checks import check_bags
from common.data.bags import read_bags
from common.data.base import Dataset, concatenate
from common.data.orientation import oriented
from common.errors import ConfigError, DataError
from common.items import BAG_SIDE, instances_of

Bags = np.ndarray


def bags() -> Bags:
    """Two bags of five rows, three features; the second is filled up from its third row."""
    made = np.ones((2, 4, 5, 1), dtype=np.float32)
    made[:, 1:] = np.random.default_rng(0).normal(0, 9, (2, 3, 5, 1))
    made[1, :, 2:] = 0
    return made


def dataset() -> Dataset:
    return Dataset(
        name="made",
        images=bags(),
        labels=np.array([0, 1]),
        patients=np.array(["a", "b"]),
        sites=np.zeros(2, np.int64),
        site_names=("here",),
        classes=("no", "yes"),
        kind="bags",
    )


def test_a_batch_holds_the_features_as_they_are() -> None:
    made = dataset().check()
    assert (made.side, made.channels, made.values) == (BAG_SIDE, 4, 20)
    features, real = instances_of(made.batch(np.array([1, 0]), torch.device("cpu")).images)
    assert np.array_equal(features.numpy(), made.images[[1, 0], 1:, :, 0].transpose(0, 2, 1))
    assert real.tolist() == [[True] * 2 + [False] * 3, [True] * 5]


def test_a_subset_and_a_concatenation_stay_bags() -> None:
    one, other = dataset().subset(np.array([0])), dataset().subset(np.array([1]))
    assert concatenate([one, other]).check().digest() == dataset().digest()


def spoilt(change: Callable[[Bags], object]) -> Bags:
    made = bags()
    change(made)
    return made


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (bags()[..., 0], r"shape \(2, 4, 5\). Allowed is float32 \[N, 1 \+ F, T, 1\]"),
        (bags()[:, :1], r"shape \(2, 1, 5, 1\)"),
        (bags()[:0], r"shape \(0, 4, 5, 1\)"),
        (bags().astype(np.float64), "bags are float64"),
        (spoilt(lambda made: made[0, 0].fill(0.5)), "the marks of 1 bags are not 0 and 1"),
        (spoilt(lambda made: made[1].fill(0)), "the marks of 1 bags are not 0 and 1 with a 1 among them"),
        (spoilt(lambda made: made[0, 2].fill(np.inf)), "1 bags hold NaN or infinite features"),
        (spoilt(lambda made: made[1, 2].fill(3)), "bags are filled up with something. Allowed is zero"),
    ],
)
def test_what_is_no_bag_is_refused(wrong: Bags, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_bags("made", wrong)
    with pytest.raises(DataError, match="made: "):
        replace(dataset(), images=wrong).check()


def write_text(path: Path) -> None:
    path.write_text("no array")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_text, "the features of row 9 cannot be read"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "the features of row 9 cannot be read"),
        (lambda path: np.save(path, np.zeros((4, 3), int)), r"are int64 \(4, 3\). Allowed are floats"),
        (lambda path: np.save(path, np.zeros(4)), r"are float64 \(4,\)"),
        (lambda path: np.save(path, np.zeros((0, 3))), "row 9"),
        (lambda path: np.save(path, np.zeros((4, 2))), "row 9 have 2 features, and those before 3"),
        (lambda path: path.write_bytes(whole(path)[:-8]), "the features of row 9 cannot be read"),
        (lambda path: path.write_bytes(b"PK\x03\x04 an archive"), "the features of row 9 cannot be read"),
    ],
)
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    np.save(tmp_path / "good.npy", np.ones((2, 3)))
    write(tmp_path / "bad.npy")
    with pytest.raises(DataError, match=message) as caught:
        read_bags("table.csv", [7, 9], [tmp_path / "good.npy", tmp_path / "bad.npy"], 4)
    assert "bad.npy" not in str(caught.value)


def whole(path: Path) -> bytes:
    np.save(path, np.zeros((4, 3)))
    return path.read_bytes()


def test_half_precision_and_any_length_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.float16).reshape(6, 1))
    found = read_bags("table.csv", [1], [tmp_path / "a.npy"], 3)
    assert found.dtype == np.float32
    assert found[0, :, :, 0].tolist() == [[1, 1, 1], [1, 3, 5]]
    with pytest.raises(DataError, match="there is no bag"):
        read_bags("table.csv", [], [], 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [("train.augment", True), ("train.amplitude-mix", 0.1), ("guidance.anatomy", 0.1), ("guidance.masks", 0.1)],
)
def test_settings_of_pixels_are_refused_for_bags_alone(key: str, value: bool | float) -> None:
    config = load_run_config({"train.augment": False, key: value})
    with pytest.raises(ConfigError, match=rf"'{key}' = .* works on pixels.*bags.*turn it off"):
        check_items(config, BAG_SIDE)
    check_items(config, 48)
    check_items(load_run_config({"train.augment": False}), BAG_SIDE)


def test_bags_cannot_be_turned() -> None:
    assert oriented(dataset(), "as-is").digest() == dataset().digest()
    with pytest.raises(ConfigError, match=r"'data\.orientation' = 'rot90' works on pixels"):
        oriented(dataset(), "rot90")
