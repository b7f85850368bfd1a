"""Benchmark files: what they say, what is refused, and that a folder grows without losing or mixing anything."""

import json
from pathlib import Path

import pytest

from common.errors import ConfigError, RunFolderError, UnknownNameError
from simulations.generalise import FOLDS
from simulations.generalise.benchmark import Benchmark, embedded, load_benchmark
from simulations.generalise.folder import joined, open_benchmark
from simulations.generalise.trainings import Trainings, plan_name
from simulations.run_folder import claimed

HEAD = 'name = "small"\nrounds = 2\n[data]\nname = "phantom"\nheld-out = "valley"\n'
FEDAVG = "[methods.fedavg]\n"


def _file(folder: Path, methods: str, head: str = HEAD) -> str:
    path = folder / "small.toml"
    path.write_text(head + methods)
    return str(path)


def test_a_list_is_a_choice_and_members_are_an_ensemble(tmp_path: Path) -> None:
    text = FEDAVG + (
        '[methods.prox]\nstrategy.name = "fedprox"\nstrategy.mu = [0.01, 0.1]\ntrain.batch-size = [8, 16]\n'
        '[methods.both]\nmembers = ["fedavg", "prox"]\n'
    )
    found = load_benchmark(_file(tmp_path, text))
    fedavg, prox, both = found.methods
    assert (found.protocol, found.reference, both.members) == ("leave-one-site-out", "fedavg", ("fedavg", "prox"))
    assert fedavg.candidates[0].config == found.base.config
    asked = [(one.config.strategy.mu, one.config.train.batch_size) for one in prox.candidates]
    assert asked == [(0.01, 8), (0.01, 16), (0.1, 8), (0.1, 16)]
    assert prox.chosen_from[1] == "strategy.mu = 0.01, train.batch-size = 16"
    assert all(one.config.rounds == 2 and one.config.strategy.name == "fedprox" for one in prox.candidates)


def test_only_keeps_the_reference_and_changes_reach_every_method(tmp_path: Path) -> None:
    text = FEDAVG + '[methods.a]\nstrategy.name = "fedexp"\n[methods.b]\nstrategy.name = "fedbn"\n'
    found = load_benchmark(_file(tmp_path, text), ["rounds=5"], ["b"])
    assert [method.name for method in found.methods] == ["fedavg", "b"]
    assert {one.config.rounds for method in found.methods for one in method.candidates} == {5}


@pytest.mark.parametrize(
    ("methods", "error", "said"),
    [
        ("", ConfigError, "names no method"),
        ("[methods.pooled]\n", ConfigError, "always compared"),
        ('[methods."A b"]\n', ConfigError, "small letters"),
        ("[methods.a]\nstrategy.mo = 1\n", ConfigError, "strategy.mo"),
        ('[methods.a]\ndata.held-out = "x"\n', ConfigError, "same data"),
        ("[methods.a]\nstrategy.mu = []\n", ConfigError, "empty list"),
        ("[methods.a]\nstrategy.mu = [0.1, -1]\n", ConfigError, "strategy.mu"),
        (FEDAVG + '[methods.a]\nmembers = ["fedavg", "b"]\n', ConfigError, "'b'"),
        (FEDAVG + '[methods.a]\nmembers = ["fedavg"]\n', ConfigError, "two methods or more"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, methods: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said.replace("(", r"\(")):
        load_benchmark(_file(tmp_path, methods))


def test_unknown_names_get_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="leave-one-site-out"):
        load_benchmark(_file(tmp_path, FEDAVG, 'protocol = "leave-one-sit-out"\n' + HEAD))
    with pytest.raises(UnknownNameError, match="fedavg"):
        load_benchmark(_file(tmp_path, FEDAVG), only=["fedavk"])
    with pytest.raises(ConfigError, match="phantom-sites"):
        load_benchmark("phantom-site")


@pytest.mark.parametrize("name", sorted(embedded()))
def test_embedded_benchmarks_can_be_read(name: str) -> None:
    found = load_benchmark(name)
    assert found.reference == "fedavg"
    assert found.protocol in FOLDS
    assert found.base.study.title


def test_folds_never_train_on_whom_they_judge_but_at_home() -> None:
    sources, held_out = ("a", "b", "c"), ("z",)
    loso = FOLDS.load("leave-one-site-out")(sources, held_out)
    assert [(fold.sources, fold.judged) for fold in loso] == [
        (("b", "c"), (("a", "all"),)),
        (("a", "c"), (("b", "all"),)),
        (("a", "b"), (("c", "all"),)),
    ]
    (apart,) = FOLDS.load("held-out")(sources, held_out)
    assert (apart.sources, apart.judged) == (sources, (("z", "all"),))
    (inside,) = FOLDS.load("in-federation")(sources, held_out)
    assert inside.judged == (("a", "test"), ("b", "test"), ("c", "test"))
    for fold in FOLDS.load("site-by-site")(sources, held_out):
        for site, split in fold.judged:
            assert (split == "test") == (site in fold.sources)


def test_one_site_cannot_be_left_out_and_no_site_cannot_be_held_out() -> None:
    with pytest.raises(ConfigError, match="needs two sites"):
        FOLDS.load("leave-one-site-out")(("a",), ())
    with pytest.raises(ConfigError, match=r"data\.held-out"):
        FOLDS.load("held-out")(("a", "b"), ())


def test_trainings_share_baselines_and_leave_the_site_out(tmp_path: Path) -> None:
    benchmark = load_benchmark(_file(tmp_path, FEDAVG + "[methods.p]\nstrategy.mu = [0.1, 1.0]\n"), ["seeds=4,5"])
    folds = tuple(FOLDS.load("leave-one-site-out")(("a", "b", "c"), ()))
    jobs = Trainings(benchmark, folds, tmp_path).jobs()
    names = [job.plan.name for job in jobs if job.seed == 4]
    assert names[:6] == ["local/a", "local/b", "local/c", *(f"pooled/without {site}" for site in "abc")]
    assert names[6:] == [
        *(f"fedavg/without {site}" for site in "abc"),
        *(f"p.{number}/without {site}" for site in "abc" for number in (1, 2)),
    ]
    assert len({job.folder for job in jobs}) == len(jobs) == 30
    for job in jobs:
        kind, _, rest = job.plan.name.partition("/")
        trained = {site for group in job.training.groups for site in group}
        assert trained == ({rest} if kind == "local" else set("abc") - {rest.removeprefix("without ")})
        assert job.training.config.data.held_out == ""
    assert plan_name(benchmark.methods[1], 1, folds[0]) == "p.2/without a"


def _noted(benchmark: Benchmark, folder: Path) -> Benchmark:
    with claimed(folder, benchmark.base, {"data": "d", "code": "c"}, resume=True):
        return joined(benchmark, folder)


def test_a_folder_grows_and_refuses_another_method_of_the_same_name(tmp_path: Path) -> None:
    first = load_benchmark(_file(tmp_path, FEDAVG + "[methods.a]\nstrategy.mu = [0.1, 1.0]\n"))
    assert _noted(first, tmp_path / "out") == first
    second = load_benchmark(_file(tmp_path, FEDAVG + '[methods.b]\nstrategy.name = "fedexp"\n'))
    whole = _noted(second, tmp_path / "out")
    assert [method.name for method in whole.methods] == ["fedavg", "a", "b"]
    assert open_benchmark(tmp_path / "out") == whole
    other = load_benchmark(_file(tmp_path, FEDAVG + "[methods.a]\nstrategy.mu = [0.1, 2.0]\n"))
    with pytest.raises(RunFolderError, match="never overwritten"):
        _noted(other, tmp_path / "out")
    with pytest.raises(RunFolderError, match="other settings"):
        _noted(load_benchmark(_file(tmp_path, FEDAVG), ["rounds=7"]), tmp_path / "out")
    with pytest.raises(RunFolderError, match="protocol"):
        _noted(load_benchmark(_file(tmp_path, FEDAVG, 'protocol = "in-federation"\n' + HEAD)), tmp_path / "out")
    assert open_benchmark(tmp_path / "out") == whole


def test_a_damaged_list_of_methods_is_said(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _noted(load_benchmark(_file(tmp_path, FEDAVG)), out)
    (out / "methods.json").write_text(json.dumps({"protocol": "held-out", "methods": {"a": 3}}))
    with pytest.raises(RunFolderError, match="damaged"):
        open_benchmark(out)
    (out / "methods.json").unlink()
    with pytest.raises(RunFolderError, match="holds no benchmark"):
        open_benchmark(out)
