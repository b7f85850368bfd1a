"""A benchmark: what a researcher writes to compare methods at hospitals that none of them has seen.

An experiment file with `protocol`, and one table of settings for each method:

    name = "lgg"
    protocol = "leave-one-site-out"
    seeds = [1, 2, 3]

    [methods.fedavg]

    [methods.fedprox]
    strategy.name = "fedprox"
    strategy.mu = [0.001, 0.01, 0.1]

    [methods.both]
    members = ["fedavg", "fedprox"]

A list is a choice: each value is trained, and the one with the best mean score on the *source* sites' validation images
judges, fold by fold. `members` is an ensemble of methods of the same fold and seed: their probabilities are averaged.
"""

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import default_values
from common.errors import ConfigError, UnknownNameError
from simulations.experiment import Experiment, build, find_file, flatten_study, parse_change
from simulations.generalise import FOLDS

FILES = Path(__file__).parent.parent / "experiments" / "benchmark"
NAME = r"[a-z0-9][a-z0-9+-]*"
BASELINES = ("local", "own", "pooled", "ensemble", "best-single-site")
"""Always there, so that no method may be called so."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table: candidates that differ in settings (one unless there is a choice), or an ensemble."""

    name: str
    candidates: tuple[Experiment, ...] = ()
    chosen_from: tuple[str, ...] = ()
    """What is said of each candidate where there are several."""
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The base settings, which the baselines have, and the methods in the order to show; the first is the reference."""

    protocol: str
    base: Experiment
    methods: tuple[Method, ...]

    @property
    def reference(self) -> str:
        """The method that the others are compared with."""
        return self.methods[0].name


def load_benchmark(source: str, changes: Sequence[str] = (), only: Sequence[str] = ()) -> Benchmark:
    """Read a benchmark file, or an embedded one by its name.

    Args:
        source: Path of a TOML file, or a name such as `brain-lgg`.
        changes: `key=value` each, of the base settings.
        only: Methods to keep; empty keeps all. The reference stays in any case.

    Raises:
        ConfigError: No such file, unknown settings or members, a name that is not allowed.
        UnknownNameError: No such protocol or method.
    """
    path = find_file(source, embedded())
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Give a TOML file that you may read.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Correct that line.") from None
    tables = values.pop("methods", None)
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{path} names no method. Write a table for each, such as [methods.fedavg].")
    protocol = values.pop("protocol", "leave-one-site-out")
    if protocol not in FOLDS:
        raise UnknownNameError("protocol of a benchmark", str(protocol), list(FOLDS))
    flat = {"name": path.stem, **flatten_study(values), "protocols": ["federated"]}
    flat |= dict(parse_change(change) for change in changes)
    methods = [_method(name, table, flat, path.parent) for name, table in tables.items()]
    return Benchmark(protocol, build(flat, path.parent), _kept(methods, only))


def _method(name: str, table: Any, flat: Mapping[str, Any], folder: Path) -> Method:
    if not re.fullmatch(NAME, name) or name in BASELINES or not isinstance(table, dict):
        raise ConfigError(
            f"method {name!r}: allowed is a table with a name of small letters, digits, + and -, other than "
            f"{', '.join(BASELINES)}, which are always compared. Call it otherwise."
        )
    if "members" in table:
        if set(table) != {"members"} or not isinstance(table["members"], list) or len(table["members"]) < 2:
            raise ConfigError(
                f"method {name!r}: `members` is a list of two methods or more, with no setting beside it."
            )
        return Method(name, members=tuple(map(str, table["members"])))
    changes = flatten_study(table)
    if unknown := [key for key in changes if key not in default_values()]:
        raise ConfigError(f"method {name!r}: setting {unknown[0]!r} is not known. `consilium settings` lists all.")
    if wrong := [key for key in changes if key.startswith("data.") or key in ("seed", "out")]:
        raise ConfigError(
            f"method {name!r} sets {wrong[0]!r}. Methods are compared on the same data; set it above them."
        )
    choices = {key: value for key, value in changes.items() if isinstance(value, list)}
    if empty := [key for key, value in choices.items() if not value]:
        raise ConfigError(f"method {name!r}: {empty[0]!r} is an empty list. Give values to choose from.")
    picks = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    return Method(
        name,
        tuple(build({**flat, **changes, **pick}, folder) for pick in picks),
        tuple(", ".join(f"{key} = {value}" for key, value in pick.items()) for pick in picks),
    )


def _kept(methods: Sequence[Method], only: Sequence[str]) -> tuple[Method, ...]:
    names = [method.name for method in methods]
    for name in only:
        if name not in names:
            raise UnknownNameError("method of this benchmark", name, names)
    kept = [method for method in methods if not only or method.name in only or method is methods[0]]
    trained = [method.name for method in kept if not method.members]
    for method in kept:
        if missing := [member for member in method.members if member not in trained]:
            raise ConfigError(
                f"method {method.name!r}: member {missing[0]!r} is no method that is trained here. There are: "
                f"{', '.join(trained)}."
            )
    return tuple(kept)


def embedded() -> dict[str, Path]:
    """Give the embedded benchmarks by name."""
    return {path.stem: path for path in sorted(FILES.glob("*.toml"))}
