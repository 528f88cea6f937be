"""The law of imports, the completeness of the config and what the project says of itself."""

import ast
import re
import sys
from pathlib import Path

import pytest

from configs import base
from gentrain.options.check import flatten
from tests.helpers import ROOT

MODULES = (
    sorted(ROOT.glob("gentrain/**/*.py")) + sorted(ROOT.glob("launch/**/*.py")) + sorted(ROOT.glob("configs/*.py"))
)

# A room may import those below it: launch -> train -> {update, evaluators, checkpoint, report, process} -> objectives
# -> decode -> {models, worlds} -> data -> {losses, divergences, sharding} -> metrics -> {config, plugins} -> {errors,
# devices}.
LEVELS = {
    **dict.fromkeys(["errors", "devices"], 0),
    **dict.fromkeys(["plugins"], 1),
    **dict.fromkeys(["config", "plots"], 2),
    **dict.fromkeys(["metrics"], 3),
    **dict.fromkeys(["losses", "divergences", "fidelity", "ngrams", "schedules", "sharding", "health", "augment"], 4),
    **dict.fromkeys(["worlds", "spectral"], 5),
    **dict.fromkeys(["data"], 6),
    **dict.fromkeys(["models"], 6.5),
    **dict.fromkeys(["decode"], 7),
    **dict.fromkeys(["objectives", "figures"], 8),
    **dict.fromkeys(["update", "evaluators", "checkpoint", "report", "process", "phases"], 9),
    **dict.fromkeys(["program"], 10),
    **dict.fromkeys(["train"], 11),
}
OWNERS = {
    "flax": ["gentrain/models/"],
    "orbax": ["gentrain/checkpoint.py"],
    "grain": ["gentrain/data/"],
    "tensorflow_datasets": ["gentrain/data/", "launch/prepare.py"],
    "matplotlib": ["gentrain/plots.py", "gentrain/figures/"],
}


def imports(path: Path) -> list[str]:
    """Full dotted names of everything a file imports, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_one_way(path):
    room = name(path).removeprefix("gentrain/").split("/")[0].removesuffix(".py")
    for imported in imports(path):
        top, *rest = imported.split(".")
        assert "_src" not in rest, f"{imported} is private"
        if top in OWNERS:
            assert any(name(path).startswith(owner) for owner in OWNERS[top]), f"{imported} belongs in {OWNERS[top]}"
        if name(path).startswith("configs/"):
            assert top in ("configs", "ml_collections") or top in sys.stdlib_module_names, imported
        elif name(path).startswith("gentrain/"):
            assert top not in ("launch", "configs", "tests"), imported
            if top == "gentrain" and rest and rest[0] != room and name(path) != "gentrain/__init__.py":
                assert LEVELS[rest[0]] < LEVELS[room], f"{room} (level {LEVELS[room]}) imports {rest[0]}"


@pytest.mark.parametrize("room", ["models", "objectives", "evaluators", "figures"])
def test_plugins_never_import_one_another(room):
    files = [path for path in MODULES if name(path).startswith(f"gentrain/{room}/") and path.stem != "__init__"]
    plugins = {path.stem for path in files if re.search(r"^def (build|draw)\(", path.read_text(), re.M)}
    for path in files:
        for imported in imports(path):
            parts = imported.split(".")
            assert not (parts[:2] == ["gentrain", room] and len(parts) > 2 and parts[2] in plugins - {path.stem}), (
                imported
            )


def test_every_config_key_is_read_somewhere():
    read = set()
    for path in MODULES:
        if not name(path).startswith("configs/"):
            tree = ast.parse(path.read_text())
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            read |= {
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
    assert {key for key in flatten(base.get_config()) if key.rsplit(".")[-1] not in read} == set()


def test_no_hidden_defaults_no_unsafe_readers():
    for path in MODULES:
        text = path.read_text()
        assert not re.search(r"config(\.\w+)*\.get\(", text), f"{path}: config keys are all in base.py"
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call):
                called = ast.unparse(call.func)
                assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load"), f"{path}: {called}"
                assert not any(word.arg in ("allow_pickle", "shell") for word in call.keywords), f"{path}: {called}"


def test_budgets_that_keep_it_readable():
    assert len((ROOT / "gentrain/train.py").read_text().splitlines()) <= 260
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not name(path).startswith("configs/"):
                assert node.end_lineno - node.lineno < 70, (
                    f"{path}: {node.name} is {node.end_lineno - node.lineno} lines"
                )
