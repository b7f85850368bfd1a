"""The folder of a benchmark: it grows method by method, and what it has it never loses or mixes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.arrays import write_atomic
from common.errors import RunFolderError
from simulations.experiment import Experiment, build
from simulations.generalise.benchmark import Benchmark, Method
from simulations.run_folder import read_settings

METHODS = "methods.json"


def joined(benchmark: Benchmark, folder: Path) -> Benchmark:
    """Give the benchmark with the methods that the folder has already, those first, and note all of them there.

    Raises:
        RunFolderError: The folder holds another protocol, or a method of the same name with other settings.
    """
    known = read_methods(folder, benchmark.base)
    if known is not None and known.protocol != benchmark.protocol:
        raise RunFolderError(
            f"{folder} holds a benchmark of the protocol {known.protocol} and this one is {benchmark.protocol}. Give "
            f"another `--out`."
        )
    had = {method.name: method for method in known.methods} if known else {}
    for method in benchmark.methods:
        if method.name in had and _described(method) != _described(had[method.name]):
            raise RunFolderError(
                f"{folder} holds a method {method.name!r} with other settings. Results are never overwritten: give the "
                f"new one another name, or another `--out`."
            )
    whole = replace(benchmark, methods=tuple((had | {method.name: method for method in benchmark.methods}).values()))
    content = {"protocol": whole.protocol, "methods": {method.name: _described(method) for method in whole.methods}}
    write_atomic(folder / METHODS, json.dumps(content, indent=1, sort_keys=False).encode())
    return whole


def read_methods(folder: Path, base: Experiment) -> Benchmark | None:
    """Read the methods of a folder; None where there are none yet.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = folder / METHODS
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        methods = tuple(_method(name, each, base, folder) for name, each in content["methods"].items())
        return Benchmark(content["protocol"], base, methods)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RunFolderError(f"{path} is damaged. Allowed is what `consilium study generalise` wrote.") from None


def open_benchmark(folder: Path) -> Benchmark:
    """Read the benchmark of a folder.

    Raises:
        RunFolderError: The folder holds none.
    """
    found = read_methods(folder, read_settings(folder))
    if found is None:
        raise RunFolderError(f"{folder} holds no benchmark. Give the folder that `consilium study generalise` wrote.")
    return found


def _described(method: Method) -> dict[str, Any]:
    """Give what determines a method: settings, flat, that differ between runs of one folder by nothing else."""
    settings = [{**each.flat(), "data.path": "", "out": ""} for each in method.candidates]
    for each in settings:
        for key in ("engine", "workers", "title"):
            del each[key]
    plain = json.loads(json.dumps(settings))
    return {"members": list(method.members), "chosen_from": list(method.chosen_from), "settings": plain}


def _method(name: str, content: Any, base: Experiment, folder: Path) -> Method:
    mine = {key: base.flat()[key] for key in ("data.path", "out", "engine", "workers", "title")}
    candidates = tuple(build({**each, **mine}, folder) for each in content["settings"])
    return Method(name, candidates, tuple(content["chosen_from"]), tuple(content["members"]))
