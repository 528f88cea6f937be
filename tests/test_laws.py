"""The law of imports, the budgets that keep the code readable, and what the project says of itself."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gentrain import plugins
from tests.helpers import ROOT

MODULES = sorted([*ROOT.glob("gentrain/**/*.py"), *ROOT.glob("launch/**/*.py"), *ROOT.glob("configs/*.py")])

# A room may import those of a lower level.
LEVELS = {
    **dict.fromkeys(["errors", "devices", "console", "files"], 0),
    **dict.fromkeys(["plugins"], 1),
    **dict.fromkeys(["options", "published"], 2),
    **dict.fromkeys(["adapters", "sums"], 3),
    **dict.fromkeys(["losses", "divergences", "schedules", "sharding"], 4),
    **dict.fromkeys(["heads", "worlds", "metrics"], 5),
    **dict.fromkeys(["datasets"], 6),
    **dict.fromkeys(["models"], 7),
    **dict.fromkeys(["decode"], 8),
    **dict.fromkeys(["objectives"], 9),
    **dict.fromkeys(["health", "evaluators"], 10),
    **dict.fromkeys(["update"], 11),
    **dict.fromkeys(["reporting", "runtime"], 12),
    **dict.fromkeys(["program", "best"], 13),
    **dict.fromkeys(["pretrained", "memory"], 14),
    **dict.fromkeys(["players"], 15),
    **dict.fromkeys(["train"], 16),
    **dict.fromkeys(["api", "look", "replay"], 17),
}
OWNERS = {
    "flax": ["gentrain/models/"],
    "orbax": ["gentrain/runtime/checkpoint.py"],
    "grain": ["gentrain/datasets/"],
    "tensorflow_datasets": ["gentrain/datasets/"],
    "matplotlib": ["gentrain/reporting/", "gentrain/evaluators/modes.py", "launch/suites/pictures.py"],
}
WITHOUT_JAX = (
    "gentrain/options/",
    "gentrain/published/",
    "launch/cli.py",
    "launch/__main__.py",
    "gentrain/plugins.py",
    "configs/",
)
COMPANIONS = ("_options", "_published")
# What can run what it reads. Nothing says these words: not as an import, a name, an attribute, a keyword or a text.
UNSAFE = {
    *("pickle", "_pickle", "dill", "cloudpickle", "jsonpickle", "marshal", "shelve", "yaml", "joblib", "torch"),
    *("eval", "exec", "builtins", "__builtins__", "__import__", "import_module", "runpy", "imp", "system", "popen"),
    *("Unpickler", "read_pickle", "serialize_executable", "allow_pickle", "shell", "trust_remote_code"),
}
UNSAFE_NAMES = {"compile", "globals"}  # of builtins; other things have attributes of these names
UNSAFE_IMPORTS = {"numpy.load", "numpy.lib.format.read_array"}  # whose calls would not be seen as numpy's
PICKLE_PLACES = {"load": 2, "read_array": 1}  # arguments of numpy's readers before the one that lets pickles in
IMPORTER = "gentrain/plugins.py"  # which looks for plug-ins in the rooms of gentrain
PEERS = ("launch/suites/peers.py", "launch/suites/torch_images.py")  # the peer itself is what is timed
MAY_IMPORT = {IMPORTER: {"import_module"}} | {file: {"torch"} for file in PEERS}


def unsafe(code: str) -> set[str]:
    """What there is of UNSAFE in the text of a module, however it is put."""
    said: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names):
                said |= {part for alias in names for part in alias.name.split(".")}
            case ast.ImportFrom(module, names):
                full = {f"{module}.{alias.name}" for alias in names}
                said |= {part for imported in full for part in imported.split(".")}
                said |= {f"{imported} imported" for imported in full if imported in UNSAFE_IMPORTS or "*" in imported}
            case ast.Name(word):
                said |= {word, f"{word} by name" if word in UNSAFE_NAMES else word}
            case ast.Attribute(_, word) | ast.keyword(word) | ast.Constant(str(word)):
                said.add(word or "")
            case ast.Call(ast.Attribute(_, word), arguments) if len(arguments) > PICKLE_PLACES.get(word, 99):
                said.add(f"{word} by place")
    endings = (" imported", " by name", " by place")
    return {word for word in said if word in UNSAFE or word.endswith(endings)}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Full dotted names of everything a file imports, inside functions too unless asked otherwise."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return name(path).removeprefix("gentrain/").split("/")[0].removesuffix(".py")


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_one_way(path):
    for imported in imports(path):
        top, *rest = imported.split(".")
        assert "_src" not in rest, f"{imported} is private"
        if top in OWNERS:
            assert any(name(path).startswith(owner) for owner in OWNERS[top]), f"{imported} belongs in {OWNERS[top]}"
        if name(path).startswith("configs/"):
            allowed = ("gentrain.errors", "gentrain.options") if name(path) == "configs/base.py" else ()
            own = top in ("configs", "ml_collections") or top in sys.stdlib_module_names
            assert own or imported.startswith(allowed), imported
        elif name(path).startswith("gentrain/"):
            assert top not in ("launch", "configs", "tests"), imported
            if top == "gentrain" and rest and rest[0] != room(path) and name(path) != "gentrain/__init__.py":
                lower = 2 if path.stem.endswith(COMPANIONS) else LEVELS[room(path)]
                assert LEVELS[rest[0]] < max(lower, 3), f"{room(path)} (level {lower}) imports {rest[0]}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_mistakes_are_told_before_jax_is_imported(path):
    if name(path).startswith(WITHOUT_JAX) or path.stem.endswith(COMPANIONS) or path.parent.name == "engines":
        tops = {imported.split(".")[0] for imported in imports(path, top_level_only=True)}
        assert not tops & {"jax", "flax", "optax", "orbax"}, name(path)


@pytest.mark.parametrize("kind", plugins.ROOMS)
def test_plugins_never_import_one_another(kind):
    names = set(plugins.names(kind))
    package = f"gentrain.{kind}"
    # What a room shares is a module without a plug-in's name; its lookup table is the one exception.
    for plugin in names:
        folder = ROOT / package.replace(".", "/")
        files = [folder / f"{plugin}.py", folder / f"{plugin}_options.py", *(folder / plugin).glob("*.py")]
        for path in filter(Path.exists, files):
            for imported in imports(path):
                parts = imported.removeprefix(f"{package}.").split(".")
                other = parts[0].removesuffix("_options")
                assert not imported.startswith(f"{package}.") or other not in names - {plugin}, f"{path}: {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_outside_a_plugin_compares_its_name(path):
    """No comparison with an objective's, model's or evaluator's name but in its own files, figures and configs."""
    if name(path).startswith(("configs/", "gentrain/reporting/figures/", "launch/aot.py")):
        return
    every = {plugin: kind for kind in ("objectives", "models", "evaluators") for plugin in plugins.names(kind)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            literals = [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
            for literal in literals:
                if isinstance(literal, str) and literal in every:
                    left = ast.unparse(node)
                    owner = f"/{literal}" in name(path)
                    assert owner or ".name" not in left, f"{name(path)}:{node.lineno}: {left}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_hidden_defaults_no_unsafe_readers(path):
    text = path.read_text()
    assert not re.search(r"config(\.\w+)*\.get\(", text), "config keys all have a declaration"
    assert not unsafe(text) - MAY_IMPORT.get(name(path), set())


HIDDEN = """
import pickle
import pickle as np
from pickle import loads
from json import x as y, pickle
import importlib; importlib.import_module("pickle")
from importlib import import_module
from importlib import import_module as load
import importlib as i; i.import_module(name)
__import__("pickle")
f = __import__
eval(text)
f = eval
list(map(exec, texts))
compile(text, "", "exec")
import builtins
from builtins import eval as f
getattr(module, "pickle")
sys.modules["pickle"]
np.load(file, allow_pickle=True)
np.load(file, None, True)
np.load(file, **{"allow_pickle": True})
from numpy import load
from numpy import load as read
np.lib.format.read_array(file, True)
os.system("ls")
from os import system
from os import system as f
from os import *
f = os.popen
subprocess.run("ls", shell=True)
pd.read_pickle(file)
import torch
from jax.experimental import serialize_executable
import yaml
""".strip().splitlines()


@pytest.mark.parametrize("line", HIDDEN)
def test_the_gate_sees_every_form_of_an_import_and_of_a_reader(line):
    assert unsafe(line)


@pytest.mark.parametrize(
    "line", ["np.load(file)", "json.loads(text)", "from numpy import asarray", "plugins.load(a, b)"]
)
def test_the_gate_lets_by_what_reads_data_alone(line):
    assert not unsafe(line)


@pytest.mark.parametrize("path", [path for path in MODULES if not name(path).startswith("configs/")], ids=name)
def test_budgets_that_keep_it_readable(path):
    assert len(path.read_text().splitlines()) <= 420
    for node in functions(path):
        assert node.end_lineno - node.lineno < 60, f"{node.name} is {node.end_lineno - node.lineno + 1} lines"
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        parameters = [argument.arg for argument in every if argument.arg not in ("self", "cls")]
        assert len(parameters) <= 6, f"{node.name} has {len(parameters)} parameters"


def test_the_trainer_is_short():
    assert len((ROOT / "gentrain/train.py").read_text().splitlines()) <= 320


def test_modules_leave_variables_their_names():
    names = {path.stem for path in MODULES if name(path).startswith("gentrain/")}
    assert not names & {"config", "data", "metrics", "params", "batch", "state", "model", "objective", "samples_"}


def test_every_option_has_a_meaning_and_every_plugin_with_options_a_docstring():
    from gentrain.options.tree import declared_fields

    assert all(len(field.metadata["doc"]) > 3 for field in declared_fields().values())
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())) or path.stem == "__init__", name(path)


def test_every_evaluator_declares_its_numbers():
    for evaluator in plugins.names("evaluators"):
        metrics = plugins.load("evaluators", evaluator).METRICS
        assert metrics
        for unit, better, meaning, *_ in metrics.values():
            assert unit and better in ("lower", "higher", None) and meaning
