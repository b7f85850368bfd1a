"""An experiment: what a researcher writes in a TOML file: a run's settings, how often to run and how to judge.

name = "skin"
seeds = [1, 2, 3]
protocols = ["federated", "local", "pooled"]
rounds = 20

[data]
name = "archive"
path = "skin.npz"
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from common.config import RunConfig, default_values, flatten, load_run_config
from common.errors import ConfigError, nearest
from simulations.protocols import PROTOCOLS

EMBEDDED = Path(__file__).parent / "experiments"
LISTS = ("seeds", "protocols")
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class StudySettings(BaseModel):
    """The part of an experiment that is no run setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64, description="short name; the run folder is called so"
    )
    title: str = Field(default="", description="one line for the report's head")
    seeds: tuple[Seed, ...] = Field(default=(1,), min_length=1, description="training seeds; the data stay the same")
    protocols: tuple[str, ...] = Field(
        default=("federated", "local", "pooled", "best-single-site", "ensemble", "matrix"),
        min_length=1,
        description="ways of training to compare",
    )
    engine: Literal["in-process", "ray"] = Field(default="in-process", description="engine of federated trainings")
    workers: int = Field(default=-1, ge=-1, le=1024, description="worker processes; -1 takes one per core, 0 none")
    bootstrap: int = Field(default=1000, ge=100, le=100_000, description="patient resamples behind each interval")

    @field_validator("seeds", "protocols")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Refuse what would train twice into one folder, and count one result as two."""
        twice = [value for value in dict.fromkeys(values) if values.count(value) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} stands there twice; name each once")
        return values


class Experiment(BaseModel):
    """A study and its settings."""

    model_config = ConfigDict(frozen=True)

    study: StudySettings
    config: RunConfig

    def seeded(self, seed: int) -> RunConfig:
        """Give the settings for one training seed."""
        return self.config.replace({"seed": seed})

    def digest(self) -> str:
        """SHA-256 over all that determines the results; the number of workers and the engine do not."""
        study = self.study.model_dump(mode="json", exclude={"workers", "engine", "title"})
        return hashlib.sha256(json.dumps([study, self.config.digest()], sort_keys=True).encode()).hexdigest()

    def flat(self) -> dict[str, Any]:
        """Give every setting, flat, as the run's record keeps it."""
        flat = {**self.study.model_dump(mode="json"), **self.config.flat()}
        del flat["seed"]  # each training has its own, from `seeds`
        return flat


def load_experiment(source: str, changes: Sequence[str] = ()) -> Experiment:
    """Read an experiment file, or an embedded one by its name, and change some keys.

    Args:
        source: Path of a TOML file, or a name such as `phantom`.
        changes: `key=value` each; the value in TOML or, failing that, as plain text.

    Raises:
        ConfigError: No such file, no valid TOML, unknown key (did you mean), wrong type or range.
    """
    path = find_file(source)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Give a TOML file that you may read.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Correct that line.") from None
    flat = {"name": _short_name(path.stem), **flatten_study(values)}
    for change in changes:
        key, value = parse_change(change)
        flat[key] = value
    return build(flat, path.parent)


def build(flat: Mapping[str, Any], folder: Path) -> Experiment:
    """Check flat keys and values and freeze them.

    Raises:
        ConfigError: As `load_experiment`.
    """
    study_keys = set(StudySettings.model_fields)
    known = [*study_keys, *default_values()]
    for key in flat:
        if key not in known:
            raise ConfigError(f"setting {key!r} is not known.{nearest(key, known)} `consilium settings` lists all.")
    if "seed" in flat:
        raise ConfigError("setting 'seed' belongs to one training. In an experiment give a list: seeds = [1, 2, 3].")
    try:
        study = StudySettings.model_validate({key: value for key, value in flat.items() if key in study_keys})
    except ValidationError as error:
        # A list is also called too short when its entries are wrong: that is no second mistake.
        problems = [item for item in error.errors() if item["type"] != "too_short" or not item["input"]]
        raise ConfigError("\n".join(map(_say, problems))) from None
    for name in study.protocols:
        PROTOCOLS.load(name)
    config = load_run_config({key: value for key, value in flat.items() if key not in study_keys})
    return Experiment(study=study, config=_with_path(config, folder))


def find_file(source: str, embedded: Mapping[str, Path] | None = None) -> Path:
    """Find an experiment by path, or one of the `embedded` by name (by default those of `consilium run`).

    Raises:
        ConfigError: Neither exists.
    """
    embedded = embedded if embedded is not None else {path.stem: path for path in sorted(EMBEDDED.glob("*.toml"))}
    if source in embedded:
        return embedded[source]
    if Path(source).is_file():
        return Path(source)
    raise ConfigError(
        f"experiment {source!r} is neither a file nor an embedded experiment.{nearest(source, list(embedded))} "
        f"Embedded: {', '.join(embedded)}."
    )


def parse_change(text: str) -> tuple[str, Any]:
    """Split `key=value`; the value is TOML if it can be read so, else text.

    Raises:
        ConfigError: There is no `=`.
    """
    key, sign, value = (part.strip() for part in text.partition("="))
    if not sign or not key:
        raise ConfigError(f"--set {text!r} is not of the form key=value. Write for example --set rounds=5.")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        read = [word.strip() for word in value.split(",")] if key in LISTS else value
    if key in LISTS and not isinstance(read, list):
        read = [read]
    # A class or file may be called 1: where a text is wanted, a bare number is one.
    wants_text = isinstance(default_values().get(key), str) or key in ("name", "title")
    return key, value if wants_text and not isinstance(read, str) else read


def flatten_study(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn nested tables into dotted keys."""
    return dict(flatten(values))


def _with_path(config: RunConfig, folder: Path) -> RunConfig:
    """Look for `data.path` from here, then beside the experiment file; found, it is kept whole, for a later resume."""
    if not config.data.path:
        return config
    path = Path(config.data.path).expanduser()
    found = next((place for place in (path, folder / path) if place.exists()), None)
    return config if found is None else config.replace({"data.path": str(found.resolve())})


def _short_name(stem: str) -> str:
    """Make a study's name from its file's."""
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:64].strip("-") or "study"


def _say(problem: Any) -> str:
    key = str(problem["loc"][0])
    text = problem["msg"].removeprefix("Value error, ")
    place = f", entry {problem['loc'][1] + 1}" if len(problem["loc"]) > 1 else ""
    return (
        f"setting {key!r}{place} is {problem['input']!r}; {text[0].lower()}{text[1:]}. `consilium settings {key}` says "
        f"what it means."
    )
