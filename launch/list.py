"""What there is, with a line each:

    python -m launch.list [configs|objectives|models|data|evaluators|figures|keys [SECTION]]

All of it is read from the declarations themselves: the files of a room, the options beside them, the metrics in them.
"""

import ast
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from gentrain import console, plugins
from gentrain.errors import ConfigError, GentrainError
from gentrain.options import tree
from gentrain.options.check import unknown_key
from gentrain.options.tree import declared_fields, default_config, flatten
from launch import cli

ROOMS = {
    "objectives": ("objectives", "objective.name"),
    "models": ("models", "model.name"),
    "data": ("datasets.sources", "data.name"),
    "evaluators": ("evaluators", "evaluate.evaluators"),
    "figures": ("reporting.figures", "report.figures"),
}
TOPICS = ("configs", *ROOMS, "keys")


def main(argv: Sequence[str] | None = None) -> int:
    """The command as a function; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if cli.asks_for_help(argv):
        print(__doc__)
        return 0
    topic, *rest = [*argv[1:], ""][: max(len(argv) - 1, 1)]
    try:
        for line in lines(topic, rest):
            print(line)
        sys.stdout.flush()
    except GentrainError as error:
        cli.say(f"{type(error).__name__}: {error}")
        return error.exit_code
    except BrokenPipeError:  # whoever read the output has seen enough
        console.silence(sys.stdout)
    return 0


def lines(topic: str, rest: Sequence[str]) -> Iterator[str]:
    """What is to be printed on a topic. Raises ConfigError for another one."""
    if topic == "configs":
        yield from list_configs()
    elif topic == "evaluators":
        yield from list_evaluators()
    elif topic in ROOMS:
        yield from list_plugins(*ROOMS[topic])
    elif topic == "keys":
        yield from list_keys(rest[0] if rest else "")
    elif topic:
        raise ConfigError(f"nothing to list about {topic!r}; there are: {', '.join(TOPICS)}")
    else:
        yield from (f"python -m launch.list {topic}" for topic in TOPICS)


def first_line(file: Path) -> str:
    """The first sentence of a module's docstring; the file is not run."""
    text = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0]
    return " ".join(text.split())


def constant(file: Path, name: str) -> tuple[str, ...]:
    """A tuple of strings that a file assigns at its top level; () where it does not."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return tuple(ast.literal_eval(node.value))
    return ()


def list_configs() -> Iterator[str]:
    """Every config file with its variants."""
    for file in cli.config_files():
        variants = [variant for variant in constant(file, "VARIANTS") if variant]
        shown = f"  variants: {', '.join(variants)}" if variants else ""
        yield f"{file}  {first_line(file)}{shown}"


def list_plugins(room: str, key: str) -> Iterator[str]:
    """Every plug-in of a room, under the key that selects it."""
    files = dict(plugins.files(room))
    yield f"{key} ="
    for name in plugins.names(room):
        argument = getattr(tree.plugin_options(room, name), "argument", "")
        yield f"  {name + (':' + argument if argument else ''):<24} {first_line(files[name])}"


def list_evaluators() -> Iterator[str]:
    """Every evaluator, and each of its numbers with its unit, its better direction and its meaning."""
    files = dict(plugins.files("evaluators"))
    yield "evaluate.evaluators ="
    for name in plugins.names("evaluators"):
        yield f"  {name}: {first_line(files[name])}"
        for metric, (unit, better, meaning, *_) in plugins.load("evaluators", name).METRICS.items():
            direction = f"{better} is better" if better else "neither is better"
            yield f"    {metric:<36} {unit}, {direction}: {meaning}"


def list_keys(section: str) -> Iterator[str]:
    """Every option whose full name begins with the section: default, allowed values, meaning, and when it is read."""
    fields, values = declared_fields(), flatten(default_config())
    shown = [key for key in values if not section or key == section or key.startswith(f"{section}.")]
    if not shown:
        sections = sorted({key.rpartition(".")[0] for key in values} - {""})
        close = unknown_key(section, [*sections, *values]).partition("; ")[2]
        raise ConfigError(f"there are no options in {section!r}; {close}")
    for key in shown:
        yield f"{key} = {values[key]!r}{details(fields[key])}"
        yield f"    {fields[key].metadata['doc']}"


def details(field: dataclasses.Field) -> str:
    """What an option may be, and what must hold for it to be read."""
    declared = field.metadata
    parts = []
    if declared["choices"]:
        parts.append("one of " + ", ".join(declared["choices"]))
    elif declared["within"]:
        parts.append(f"in {declared['within']}")
    if declared["when"]:
        conditions = (f"{name} = {' or '.join(map(str, allowed))}" for name, allowed in declared["when"].items())
        parts.append("read where " + " and ".join(conditions))
    return f"    ({'; '.join(parts)})" if parts else ""


if __name__ == "__main__":
    sys.exit(main())
