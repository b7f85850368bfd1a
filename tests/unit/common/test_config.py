"""Settings: one table of defaults, keys in kebab-case, and answers that help."""

import math
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.config import (
    RunConfig,
    Section,
    default_values,
    flatten,
    load_run_config,
    nest,
    run_config,
)
from common.errors import ConfigError


def keys_of(section: type[Section], prefix: str = "") -> dict[str, type]:
    keys: dict[str, type] = {}
    for field in section.model_fields.values():
        key = f"{prefix}{field.alias}"
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            keys |= keys_of(kind, f"{key}.")
        else:
            keys[key] = kind
    return keys


KEYS = keys_of(RunConfig)


def test_the_table_in_pyproject_holds_exactly_the_settings_of_a_run(root):
    table = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert set(flatten(table)) == set(KEYS)
    assert set(default_values()) == set(KEYS)


def test_every_setting_says_what_it_means_and_is_written_in_kebab_case():
    def fields(section):
        for field in section.model_fields.values():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                yield from fields(field.annotation)
            else:
                yield field

    assert all(field.description for field in fields(RunConfig))
    assert all(field.is_required() or not field.default for field in fields(RunConfig)), "pyproject has the values"
    assert all(key == key.lower() and "_" not in key for key in KEYS)


def test_defaults_go_there_and_back():
    config = load_run_config()
    assert config.flat() == default_values()
    assert run_config(config.flat()) == config
    assert list(config.flat()) == list(KEYS)


def test_flower_carries_every_value():
    assert {type(value) for value in load_run_config().flat().values()} <= {bool, int, float, str}


def test_a_change_changes_that_key_only():
    before = load_run_config()
    after = before.replace({"train.batch-size": 5})
    assert after.train.batch_size == 5
    assert {key for key in KEYS if before.flat()[key] != after.flat()[key]} == {"train.batch-size"}
    assert before == load_run_config()


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_run_config().train.batch_size = 3


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.batchsize", "train.batch-size"),
        ("train.batch_size", "train.batch-size"),
        ("learning-rate", "train.learning-rate"),
        ("rouns", "rounds"),
        ("stratgy.name", "strategy.name"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key, nearest):
    with pytest.raises(ConfigError) as error:
        load_run_config({key: 3})
    assert repr(key) in str(error.value)
    assert f"Did you mean {nearest!r}?" in str(error.value)


def test_a_key_like_none_is_refused_without_a_guess():
    with pytest.raises(ConfigError, match="not known") as error:
        load_run_config({"zzzzqqqq": 3})
    assert "Did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", "many"),
        ("rounds", 2.5),
        ("rounds", [1]),
        ("rounds", None),
        ("train.augment", "perhaps"),
        ("train.learning-rate", "fast"),
        ("model.name", 3),
        ("data.path", True),
    ],
)
def test_a_wrong_type_is_refused_with_key_and_value(key, value):
    with pytest.raises(ConfigError) as error:
        load_run_config({key: value})
    assert repr(key) in str(error.value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", 0),
        ("rounds", -1),
        ("seed", -1),
        ("seed", 2**63),
        ("model.width", 3),
        ("train.learning-rate", 0.0),
        ("train.learning-rate", math.nan),
        ("train.learning-rate", math.inf),
        ("train.momentum", 1.0),
        ("train.optimizer", "adam"),
        ("train.device", "gpu"),
        ("train.device", "cuda:"),
        ("cohort.fraction", 0.0),
        ("cohort.fraction", 1.01),
        ("cohort.quorum", 0),
        ("cohort.timeout-seconds", math.inf),
        ("strategy.tau", 0.0),
        ("data.orientation", "upside-down"),
        ("data.partition", "random"),
        ("data.image-size", 4096),
        ("privacy.mechanism", "laplacian"),
    ],
)
def test_out_of_range_is_refused_with_key_and_value(key, value):
    with pytest.raises(ConfigError) as error:
        load_run_config({key: value})
    assert f"setting {key!r} is {value!r}; " in str(error.value)
    assert f"consilium settings {key}" in str(error.value)


def test_all_problems_are_said_at_once():
    with pytest.raises(ConfigError) as error:
        load_run_config({"rounds": 0, "train.batch-size": 0})
    assert len(str(error.value).splitlines()) == 2


def test_a_missing_setting_is_named():
    values = default_values()
    del values["train.amp"]
    with pytest.raises(ConfigError, match=r"'train\.amp' is missing"):
        run_config(values)


@pytest.mark.parametrize("section", ["data", "train", "strategy"])
def test_a_section_is_no_value(section):
    with pytest.raises(ConfigError, match=f"{section!r} is not known"):
        load_run_config({section: "something"})


def test_nest_refuses_a_value_that_is_a_section_in_either_order():
    with pytest.raises(ConfigError, match="is a value, not a section"):
        nest({"data": 1, "data.path": 2})
    with pytest.raises(ConfigError, match="is a section, not a value"):
        nest({"data.path": 2, "data": 1})


parts = st.text("abc-", min_size=1, max_size=4)
trees = st.recursive(st.integers() | st.text(), lambda inner: st.dictionaries(parts, inner, min_size=1, max_size=3))


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(st.dictionaries(parts, trees, max_size=4))
def test_nest_undoes_flatten(tree):
    assert nest(flatten(tree)) == tree


def test_the_digest_ignores_the_folder_and_nothing_else():
    base = load_run_config()
    assert base.replace({"out": "/somewhere"}).digest() == base.digest()
    others = {
        bool: lambda value: not value,
        int: lambda value: value + 1,
        float: lambda value: value / 2 or 0.5,
        str: lambda value: f"{value}x",
    }
    literals = {
        "data.orientation": "rot90",
        "data.partition": "quantity",
        "train.optimizer": "sgd",
        "train.augmentation": "medical",
        "train.class-weights": "balanced",
        "train.device": "cpu",
        "model.placement": "skip",
        "guidance.region": "atlas",
        "model.anatomy-bias": "disc",
        "strategy.attention-weights": "fair",
        "privacy.mechanism": "gaussian",
        "privacy.placement": "central",
        "privacy.clipping": "automatic",
        "privacy.engine": "per-sample",
        "secure-aggregation.ring-bits": 64,
        "secure-aggregation.consistency": "signed",
    }
    digests = {
        key: base.replace({key: literals.get(key) or others[type(value)](value)}).digest()
        for key, value in base.flat().items()
        if key not in ("out", "secure-aggregation.groups", "secure-aggregation.combine")  # they need it enabled
        and key not in ("model.amplitude", "model.representation")  # they need a strategy
    }
    assert len({base.digest(), *digests.values()}) == len(digests) + 1


def test_the_digest_is_of_meaning_not_of_writing():
    """`--set rounds=5` arrives as a text, TOML as a number; 1 and 1.0 are one fraction."""
    assert load_run_config({"rounds": "12"}).digest() == load_run_config({"rounds": 12}).digest()
    assert load_run_config({"cohort.fraction": 1}).digest() == load_run_config({"cohort.fraction": 1.0}).digest()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"privacy.mechanism": "gaussian", "privacy.placement": "distributed"}, "live on integers"),
        ({"privacy.mechanism": "skellam", "privacy.placement": "site"}, "live on integers"),
        ({"privacy.mechanism": "skellam", "privacy.placement": "distributed"}, "does not protect its patients"),
        ({"privacy.mechanism": "gaussian", "train.class-weights": "balanced"}, "no noise covers"),
        ({"privacy.mechanism": "gaussian", "train.sam": 0.05}, "cost twice"),
        ({"privacy.mechanism": "gaussian", "train.amplitude-mix": 0.05}, "no gradient is one patient's"),
        ({"secure-aggregation.enabled": True, "guidance.teacher": 0.1}, "do not train with guidance"),
        ({"secure-aggregation.enabled": True, "strategy.attention-weights": "fair"}, "single sites' signatures"),
        ({"secure-aggregation.groups": 2}, "Enable it"),
        ({"secure-aggregation.combine": "median"}, "three groups|3 or more"),
        (
            {
                "secure-aggregation.enabled": True,
                "secure-aggregation.groups": 2,
                "privacy.mechanism": "gaussian",
                "privacy.placement": "central",
            },
            "that of one sum",
        ),
    ],
)
def test_protection_that_would_not_hold_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        load_run_config({"rounds": 9, **changes})
