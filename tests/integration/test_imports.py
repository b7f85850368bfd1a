"""The arrows between packages are kept, and Flower and heavy libraries come in by few doors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="import-linter comes with the extra `dev`")


def test_the_contracts_are_kept(root):
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def sources(root, *folders):
    return [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]


FLOWER_DOORS = {
    "common/messages.py",
    "client/app.py",
    "client/guard.py",
    "server/app.py",
    "server/exchange.py",
    "simulations/engine.py",
    "simulations/ray_engine.py",
}


def test_flower_enters_by_few_doors(root):
    found = {
        path.relative_to(root).as_posix()
        for path in sources(root, "common", "client", "server", "simulations")
        if any(name.split(".")[0] == "flwr" for name in imports(path))
    }
    assert found <= FLOWER_DOORS


def test_what_goes_to_hospitals_uses_flowers_public_names_only(root):
    public = {"flwr.app", "flwr.clientapp", "flwr.serverapp"}
    found = {
        name
        for path in sources(root, "common", "client", "server")
        for name in imports(path)
        if name.split(".")[0] == "flwr"
    }
    assert found <= public


def test_no_source_file_has_a_name_that_flower_leaves_out(root):
    """`test_*.py` and `*_test.py` never enter an app bundle."""
    names = [path.name for path in sources(root, "common", "client", "server")]
    assert not [name for name in names if name.startswith("test_") or name.endswith("_test.py")]


def test_nothing_is_unpickled(root):
    """No pickle, dill or cloudpickle; no `torch.load`; no `allow_pickle` but False."""
    for path in sources(root, "common", "client", "server", "simulations"):
        assert not {"pickle", "dill", "cloudpickle", "shelve", "joblib"} & set(imports(path)), path
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
