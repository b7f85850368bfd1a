"""Registries: a literal table, loaded on demand, and every entry of every family exists."""

import sys

import pytest

from common.data import DATASETS
from common.errors import UnknownNameError
from common.metrics import METRICS
from common.models import MODELS
from common.registry import Registry
from common.tasks import TASKS
from server.strategies import STRATEGIES

TABLE = {"ordered": "collections:OrderedDict", "zen": "this:s"}


def test_it_is_a_read_only_mapping():
    source = dict(TABLE)
    registry = Registry("part", source)
    source["other"] = "os:path"
    assert dict(registry) == TABLE
    assert len(registry) == 2
    assert "ordered" in registry
    with pytest.raises(TypeError):
        registry["new"] = "x:y"


def test_a_part_is_imported_only_when_asked_for():
    import collections

    assert Registry("part", TABLE).load("ordered") is collections.OrderedDict
    assert "this" not in sys.modules


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    with pytest.raises(UnknownNameError) as error:
        Registry("model", {"vit-tiny": "a:b", "se-convnet": "c:d"}).load("vit-tinny")
    assert str(error.value) == ("model 'vit-tinny' is not known. Did you mean 'vit-tiny'? Known: se-convnet, vit-tiny.")


@pytest.mark.parametrize("family", [DATASETS, METRICS, MODELS, TASKS, STRATEGIES], ids=lambda family: family.what)
def test_every_name_leads_to_something_callable(family):
    assert len(family) > 0
    for name in family:
        assert callable(family.load(name))
        assert name == name.lower()
        assert "_" not in name
