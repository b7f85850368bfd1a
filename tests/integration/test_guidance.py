"""Guidance in a federation: each switch changes what is learnt, none changes nothing, and a run can be resumed."""

import numpy as np
import pytest

from client.guidance import GUIDANCE
from common.errors import AggregationError, ConfigError
from server.checkpoint import load_checkpoint
from server.rounds import Stopped
from tests.federations import same_arrays, same_checkpoint, small_config, sorted_like, train_small
from tests.integration.test_resume import stopping

ROUNDS = 4


def config(out, **weights):
    settings = {f"guidance__{name}": value for name, value in weights.items()}
    return small_config(rounds=ROUNDS, out=str(out), data__patients_per_site=8, **settings)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train_small(config(tmp_path_factory.mktemp("plain")))[0].arrays


@pytest.mark.parametrize("name", sorted(GUIDANCE))
def test_each_switch_changes_something(name, plain, tmp_path):
    end, records = train_small(config(tmp_path, **{name: 0.5}))
    assert not any(record.failures for record in records)
    assert not same_arrays(end.arrays, plain)
    assert all(np.isfinite(array).all() for array in end.arrays.values())


def test_workers_change_no_bit_under_all_of_it(tmp_path):
    weights = dict.fromkeys(GUIDANCE, 0.1)
    first, _ = train_small(config(tmp_path / "0", **weights))
    second, _ = train_small(config(tmp_path / "2", **weights), workers=2)
    assert same_checkpoint(first, second)


def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path):
    weights = {"alignment": 0.2, "adversary": 0.1}
    whole, _ = train_small(config(tmp_path / "whole", **weights))
    run, _ = stopping(config(tmp_path / "broken", **weights), after=3)
    with pytest.raises(Stopped):
        run()
    assert load_checkpoint(tmp_path / "broken").round == 3
    found, _ = train_small(config(tmp_path / "broken", **weights))
    assert same_checkpoint(sorted_like(found, whole), whole)


def test_the_prior_waits_until_the_start(plain, tmp_path):
    """With a start after the last round's progress, 3/4, the prior is never read; just before it, once."""
    late, _ = train_small(config(tmp_path / "late", band=0.5, start=0.76))
    once, _ = train_small(config(tmp_path / "once", band=0.5, start=0.75))
    assert same_arrays(late.arrays, plain)
    assert not same_arrays(once.arrays, plain)


def test_terms_that_read_the_prior_need_it_measured():
    with pytest.raises(ConfigError, match=r"guidance.alignment.*'attention.every' is 0"):
        small_config(guidance__band=0.1, attention__every=0)


def test_a_site_without_masks_or_attention_says_so(tmp_path):
    with pytest.raises(AggregationError, match="attention"):
        train_small(small_config(guidance__teacher=0.1, model__name="convnet", model__attention="none"))
