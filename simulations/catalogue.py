"""What there is to choose: settings with their meaning, and the parts of every family."""

import json
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from client.adaptation import ADAPTATIONS
from client.guidance import GUIDANCE
from client.private import ENGINES
from common.attention import ATTENTION
from common.config import RunConfig, default_values
from common.data import DATASETS
from common.errors import ConfigError, UnknownNameError, nearest
from common.explanations import EXPLANATIONS
from common.metrics import METRICS
from common.models import MODELS
from common.tasks import TASKS
from server.strategies import STRATEGIES
from simulations.attacks import ATTACKS
from simulations.corruptions import CORRUPTIONS
from simulations.experiment import EMBEDDED, StudySettings
from simulations.generalise.benchmark import embedded
from simulations.protocols import PROTOCOLS
from simulations.report import FIGURES
from simulations.streams import STREAMS

FAMILIES = {
    "adaptations": ADAPTATIONS,
    "attacks": ATTACKS,
    "attention": ATTENTION,
    "corruptions": CORRUPTIONS,
    "datasets": DATASETS,
    "engines": ENGINES,
    "explanations": EXPLANATIONS,
    "figures": FIGURES,
    "guidance": GUIDANCE,
    "metrics": METRICS,
    "models": MODELS,
    "protocols": PROTOCOLS,
    "strategies": STRATEGIES,
    "streams": STREAMS,
    "tasks": TASKS,
}


def settings_table() -> list[dict[str, Any]]:
    """Give key, default, allowed values and meaning of every setting of an experiment."""
    defaults = default_values()
    rows = [
        {
            "key": name,
            "default": field.get_default() if not field.is_required() else "",
            "allowed": _allowed(StudySettings, name),
            "meaning": field.description or "",
        }
        for name, field in StudySettings.model_fields.items()
    ]
    for key, value in defaults.items():
        if key == "seed":
            continue
        section, leaf = _section(key)
        name = leaf.replace("-", "_")
        meaning = section.model_fields[name].description or ""
        rows.append({"key": key, "default": value, "allowed": _allowed(section, name), "meaning": meaning})
    return rows


def print_settings(prefix: str, as_json: bool) -> None:
    """Print the settings whose key begins with `prefix`.

    Raises:
        ConfigError: None does.
    """
    rows = [row for row in settings_table() if row["key"].startswith(prefix)]
    if not rows:
        keys = [row["key"] for row in settings_table()]
        raise ConfigError(f"no setting begins with {prefix!r}.{nearest(prefix, keys)} `consilium settings` lists all.")
    _print(rows, as_json)


def print_parts(family: str, as_json: bool) -> None:
    """Print the names of one family, or of all, and the embedded experiments.

    Raises:
        UnknownNameError: No such family.
    """
    tables = {name: sorted(registry) for name, registry in FAMILIES.items()}
    tables["benchmarks"] = sorted(embedded())
    tables["experiments"] = sorted(path.stem for path in EMBEDDED.glob("*.toml"))
    if family and family not in tables:
        raise UnknownNameError("family", family, list(tables))
    chosen = {family: tables[family]} if family else tables
    _print([{"family": name, "parts": ", ".join(parts)} for name, parts in chosen.items()], as_json)


def _section(key: str) -> tuple[type[BaseModel], str]:
    section: type[BaseModel] = RunConfig
    *parents, leaf = key.split(".")
    for parent in parents:
        found = section.model_fields[parent.replace("-", "_")].annotation
        assert isinstance(found, type)
        section = found
    return section, leaf


def _allowed(section: type[BaseModel], name: str) -> str:
    schema = section.model_json_schema(by_alias=False)["properties"][name]
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "pattern": "like"}
    bounds = [
        f"{sign} {schema[key]:g}" if key != "pattern" else f"like {schema[key]}"
        for key, sign in signs.items()
        if key in schema
    ]
    return ", ".join([str(schema.get("type", "")), *bounds])


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, default=list))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column in ("key", "family"))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
