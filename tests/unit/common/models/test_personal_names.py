"""Which arrays a declaration keeps at a site: by path, by role, and never in silence none."""

import pytest
from torch import nn

from common.attention.personal import personal_parameters
from common.config import ModelSection, load_run_config
from common.errors import ConfigError, UnknownNameError
from common.models import MODELS
from common.models.build import build_model
from common.models.norms import norm_parameters, norm_statistics
from common.models.personal import declared, head_parameters, personal_names
from tests.fed_items import fed


def built(name="se-convnet", **changes):
    channels, size = fed(name)
    section = load_run_config({"model.name": name, "model.width": 4, **changes}).model
    return build_model(section, channels, 1, size, 0, DENSE[name])


STATISTICS = ("running_mean", "running_var")
DENSE = {
    name: MODELS.load(name)(ModelSection(name=name, width=8), fed(name)[0], 1, fed(name)[1]).dense for name in MODELS
}


class Batched(nn.Module):
    """Two kinds of norm with statistics, one without, and a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GroupNorm(1, 2))
        self.other = nn.InstanceNorm2d(2, track_running_stats=True)
        self.forgetful = nn.BatchNorm2d(2, track_running_stats=False)
        self.head = nn.Linear(2, 1)
        self.header = nn.Linear(1, 1)


def test_nothing_declared_keeps_nothing():
    assert personal_names(built(), ()) == ()
    assert declared(" , ,") == ()
    assert declared("head, blocks.1.*,,@norms ") == ("head", "blocks.1.*", "@norms")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("head", ["head.weight", "head.bias"]),
        ("head.*", ["head.weight", "head.bias"]),
        ("head.bias", ["head.bias"]),
        ("*.bias", ["body.0.bias", "body.1.bias", "body.2.bias", "forgetful.bias", "head.bias", "header.bias"]),
        ("body.1", [f"body.1.{each}" for each in ("weight", "bias", *STATISTICS)]),
        ("body.?.weight", ["body.0.weight", "body.1.weight", "body.2.weight"]),
        ("*.running_*", [f"{path}.{each}" for path in ("body.1", "other") for each in STATISTICS]),
    ],
)
def test_a_path_stands_for_itself_and_all_below_it(path, expected):
    found = personal_names(Batched(), (path,))
    assert [name for name in found if "batches" not in name] == expected


def test_a_path_never_stands_for_another_that_begins_alike():
    assert not any(name.startswith("header") for name in personal_names(Batched(), ("head",)))
    assert personal_names(Batched(), ("*",)) == tuple(Batched().state_dict())


def test_order_and_repetition_of_a_declaration_change_nothing():
    model = built()
    expected = personal_names(model, ("@norms", "head"))
    assert expected == personal_names(model, ("head.bias", "head", "@norms", "@head"))
    assert expected == tuple(key for key in model.state_dict() if key in expected)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_roles_of_every_model(name):
    """Every model calls the layer that answers its head, and has norms; none of them keeps statistics."""
    model = built(name, **{"model.personal-attention": "vit" in name or "se" in name})
    head = personal_names(model, ("@head",))
    assert head == head_parameters(model)
    assert all(name.startswith("head.") for name in head)
    assert personal_names(model, ("@norms",)) == norm_parameters(model)
    if "vit" in name:
        assert personal_names(model, ("@attention",)) == personal_parameters(model)
    with pytest.raises(ConfigError, match=r"GroupNorm and LayerNorm keep none.*set `model.batch-norm`"):
        personal_names(model, ("@statistics",))


def test_statistics_are_the_buffers_of_norms_and_no_scale_or_shift():
    model = Batched()
    names = norm_statistics(model)
    assert {name.rpartition(".")[0] for name in names} == {"body.1", "other"}
    assert {name.rpartition(".")[2] for name in names} == {*STATISTICS, "num_batches_tracked"}
    assert set(names) < set(norm_parameters(model))
    assert not {name for name, _ in model.named_parameters()} & set(names)


@pytest.mark.parametrize(("path", "near"), [("haed", "'head'"), ("head.wieght", "'head.weight'"), ("Head", "'head'")])
def test_a_path_that_matches_nothing_is_refused_with_near_ones(path, near):
    with pytest.raises(ConfigError, match=f"{path}.*Near are.*{near}.*strategy.personal"):
        personal_names(built(), ("@norms", path))


def test_a_path_like_no_other_is_answered_by_the_models_parts():
    with pytest.raises(ConfigError, match="Near are 'head', 'stage1', 'stage2', 'stage3', 'stem';"):
        personal_names(built(), ("☃",))


def test_unknown_roles_and_roles_that_a_model_lacks_are_refused():
    with pytest.raises(UnknownNameError, match=r"@hea.*Did you mean '@head'"):
        personal_names(built(), ("@hea",))
    with pytest.raises(ConfigError, match=r"set `model.personal-attention` to true"):
        personal_names(built(), ("@attention",))
    bare = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(ConfigError, match="no submodule called 'head'"):
        personal_names(bare, ("@head",))
    with pytest.raises(ConfigError, match="no normalisation layer"):
        personal_names(bare, ("@norms",))
