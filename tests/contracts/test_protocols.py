"""Every protocol: its trainings use source sites only, its juries exist, and it says what it means."""

import pytest

from simulations.protocols import PROTOCOLS, Cast, Comparison

SOURCES = ("alpha", "beta", "gamma")
SCORES = {"local/alpha": 0.6, "local/beta": 0.9, "local/gamma": 0.7}
CAST = Cast(SOURCES, ("delta",), SCORES.__getitem__)


@pytest.fixture(params=sorted(PROTOCOLS))
def protocol(request: pytest.FixtureRequest) -> Comparison:
    made: Comparison = PROTOCOLS.load(request.param)()
    return made


def test_trainings_have_distinct_names_and_train_on_source_sites_only(protocol: Comparison) -> None:
    plans = protocol.plans(SOURCES)
    assert len({plan.name for plan in plans}) == len(plans) > 0
    for plan in plans:
        members = [site for group in plan.groups for site in group]
        assert members
        assert len(set(members)) == len(members)
        assert set(members) <= set(SOURCES)


def test_every_judging_model_is_trained(protocol: Comparison) -> None:
    trained = {plan.name for plan in protocol.plans(SOURCES)}
    for site in (*SOURCES, "delta"):
        for jury in protocol.juries(site, CAST):
            assert jury
            assert set(jury) <= trained


def test_it_says_what_it_means(protocol: Comparison) -> None:
    assert protocol.method
    assert len(protocol.meaning) > 20


def test_methods_have_distinct_names() -> None:
    methods = [PROTOCOLS.load(name)().method for name in PROTOCOLS]
    assert len(set(methods)) == len(methods)


def test_the_best_single_site_is_the_one_that_validates_best() -> None:
    best = PROTOCOLS.load("best-single-site")()
    assert {tuple(best.juries(site, CAST)) for site in (*SOURCES, "delta")} == {(("local/beta",),)}


def test_a_left_out_site_is_judged_only_by_the_model_that_never_saw_it() -> None:
    protocol = PROTOCOLS.load("leave-one-site-out")()
    groups = {plan.name: {site for group in plan.groups for site in group} for plan in protocol.plans(SOURCES)}
    for site in SOURCES:
        (jury,) = protocol.juries(site, CAST)
        assert all(site not in groups[name] for name in jury)
        assert all(groups[name] == set(SOURCES) - {site} for name in jury)
    assert protocol.juries("delta", CAST) == []


def test_one_source_site_alone_leaves_nothing_to_leave_out() -> None:
    protocol = PROTOCOLS.load("leave-one-site-out")()
    assert protocol.plans(("alpha",)) == []
    assert protocol.juries("alpha", Cast(("alpha",), (), SCORES.__getitem__)) == []


def test_the_ensemble_is_all_locals_in_one_jury_and_local_is_each_in_its_own() -> None:
    locals_ = ("local/alpha", "local/beta", "local/gamma")
    assert PROTOCOLS.load("ensemble")().juries("delta", CAST) == [locals_]
    assert PROTOCOLS.load("local")().juries("delta", CAST) == [(name,) for name in locals_]
    assert PROTOCOLS.load("local")().juries("beta", CAST) == [("local/beta",)]
