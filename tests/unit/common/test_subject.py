"""Two requests have one digest only if every site that gets either does the same."""

from dataclasses import replace

import numpy as np
import pytest

from common.messages import EvaluateRequest, TrainRequest, pack, unpack
from common.subject import subject_of

TRAIN = TrainRequest(round=3, arrays={"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.int64)})
JUDGE = EvaluateRequest(round=3, arrays=TRAIN.arrays, split="val")


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 4},
        {"mu": 1e6},
        {"keep_local": ("a",)},
        {"manner": "alone"},
        {"method": "control-variates"},
        {"shared": {"a": np.zeros(1)}},
        {"measure": True},
        {"noise_multiplier": 0.1},
        {"prior": {"a": np.zeros(1)}},
        {"reference": {"a": np.zeros(1)}},
        {"arrays": {**TRAIN.arrays, "a": TRAIN.arrays["a"].reshape(3, 2)}},
        {"arrays": {**TRAIN.arrays, "a": TRAIN.arrays["a"].view(np.int32)}},
        {"arrays": {**TRAIN.arrays, "a": TRAIN.arrays["a"] + np.float32(1e-3)}},
        {"arrays": {"a": TRAIN.arrays["a"]}},
        {"arrays": {}, "prior": TRAIN.arrays},
    ],
    ids=str,
)
def test_whatever_steers_a_site_changes_it(changes):
    assert subject_of(replace(TRAIN, **changes)) != subject_of(TRAIN)


def test_every_field_is_covered():
    plain = {"round", "mu", "keep_local", "manner", "method", "measure", "noise_multiplier"}
    arrays = {"arrays", "shared", "prior", "reference"}
    assert plain | arrays | {"terms", "sealed"} == set(TrainRequest.__dataclass_fields__)
    assert subject_of(replace(JUDGE, split="test")) != subject_of(JUDGE)


def test_what_is_each_sites_own_does_not():
    assert subject_of(replace(TRAIN, terms="terms", sealed=b"sealed")) == subject_of(TRAIN)


def test_it_survives_the_wire():
    assert subject_of(unpack(pack(TRAIN), TrainRequest)) == subject_of(TRAIN)
    turned = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in TRAIN.arrays.items()}
    assert subject_of(replace(TRAIN, arrays=turned)) == subject_of(TRAIN)
