"""Refuses configs that cannot be, before JAX is imported: types and ranges, then who reads what, then combinations."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from gentrain import plugins
from gentrain.errors import ConfigError
from gentrain.options.schema import check_value, expect
from gentrain.options.tree import Run, declared_fields, default_config, networks, places, plugin_options


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{'optimizer.learning_rate': 1e-3, …}: every key by its full name."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def validate(config: ConfigDict, flags: Iterable[str] = ()) -> None:
    """Raises ConfigError for the first value that cannot be, naming the key, what it is and what it may be.

    flags: full names of the keys that were given on the command line. An option that is set, by a flag or to another
    value than its default, and that no variant reads is refused; so is a flag that every variant overrules.
    """
    chosen = variants(config)
    runs = list(chosen.values()) if chosen else [config]
    for variant in runs:
        check_values(variant)
    typed = [Run(variant) for variant in runs]
    check_overruled(config, typed, set(flags))
    check_read(config, typed, set(flags))
    for run in typed:
        check_together(run)
        for part in run.parts():
            part.options.check(run, part.where)


def variants(config: ConfigDict) -> dict[str, ConfigDict]:
    """The runs of a sweep by name, which says what sets each apart: 'learning_rate=0.01,seed=1'.

    Raises ConfigError for an unknown key, a value of another type, and for two variants of one name.
    """
    expect(
        isinstance(config.sweep, tuple | list) and all(isinstance(overrides, Mapping) for overrides in config.sweep),
        "sweep",
        config.sweep,
        "a tuple of dicts, as ({'seed': 0}, {'seed': 1})",
    )
    found: dict[str, ConfigDict] = {}
    for overrides in config.sweep:
        expect(bool(overrides), "sweep", {}, "variants that say what sets them apart")
        variant = config.copy_and_resolve_references()
        variant.sweep = ()
        variant.lock()
        known = flatten(variant)
        for key in overrides:
            if key not in known:
                raise ConfigError(f"sweep: {unknown_key(key, known)}")
        try:
            variant.update_from_flattened_dict(dict(overrides))
        except (KeyError, TypeError, ValueError) as error:
            text = " ".join(str(error.args[0]).split())
            raise ConfigError(f"sweep: {dict(overrides)!r} does not fit the config: {text}") from None
        shorten_warmup(variant)
        name = variant_name(overrides)
        if name in found:
            raise ConfigError(f"sweep: two variants are named {name!r}; let them differ in a key, such as seed")
        found[name] = variant
    return found


def variant_name(overrides: Mapping[str, Any]) -> str:
    """'learning_rate=0.01,seed=1': fit for a folder."""
    return ",".join(f"{key.rsplit('.')[-1]}={short(value)}" for key, value in overrides.items())


def short(value: Any) -> str:
    return re.sub(r"[^\w.+-]+", "_", f"{value:g}" if isinstance(value, float) else str(value)).strip("_")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say of a key that there is not: the nearest one, by its last word or by all of it."""
    known = list(known)
    same_end = [name for name in known if name.rsplit(".")[-1] == key.rsplit(".")[-1]]
    nearest = same_end or difflib.get_close_matches(key, known, 1, 0)
    return f"config has no key {key!r}; did you mean {nearest[0]!r}?"


def shorten_warmup(config: ConfigDict) -> str:
    """Makes the warm-up a tenth of a run that is not longer than it; what was changed, as a line, or nothing."""
    optimizer, steps = config.optimizer, config.steps
    if steps < 1 or optimizer.warmup_steps < steps:
        return ""
    before, optimizer.warmup_steps = optimizer.warmup_steps, steps // 10
    return f"optimizer.warmup_steps: {before} -> {optimizer.warmup_steps}, since steps={steps}"


def check_values(config: ConfigDict) -> None:
    """Raises ConfigError for a value that its own declaration rules out, whether it is read or not."""
    fields = declared_fields()
    for key, value in flatten(config).items():
        check_value(fields[key], key, value)


def check_overruled(config: ConfigDict, runs: list[Run], flags: set[str]) -> None:
    """Raises ConfigError for a flag that every variant which reads it sets anew."""
    for key in sorted(flags) if config.sweep else ():
        readers = [overrides for overrides, run in zip(config.sweep, runs, strict=True) if key in run.reads()]
        if readers and all(key in overrides for overrides in readers):
            names = [variant_name(overrides) for overrides in readers]
            shown = "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")
            raise ConfigError(
                f"--config.{key} changes nothing: every variant that reads it sets it ({shown}); add"
                " --config.sweep='()' to run one variant of your own"
            )


def check_read(config: ConfigDict, runs: list[Run], flags: set[str]) -> None:
    """Raises ConfigError for an option that is set and that no variant reads, naming who would read it."""
    read = set[str]().union(*(run.reads() for run in runs))
    base, fields = flatten(default_config()), declared_fields()
    values = flatten(config)
    written = {key for key, value in values.items() if value != base[key]} | flags
    written |= {key for overrides in config.sweep for key in overrides}
    for key in sorted(written - read - {"sweep"}):
        value = next((overrides[key] for overrides in config.sweep if key in overrides), values[key])
        raise ConfigError(f"{key}={value!r} is set, and nothing reads it: {readers(key, fields[key], runs)}")


def readers(key: str, field: Any, runs: list[Run]) -> str:
    """Who would read an option that nothing selected reads."""
    where, _, name = key.rpartition(".")
    when = ", ".join(
        f"{where}.{other}={' or '.join(map(repr, allowed))}" if other not in ("makes", "argument") else
        f"{'model' if other == 'makes' else 'data'}s of {' or '.join(map(str, allowed))}"
        for other, allowed in field.metadata["when"].items()
    )  # fmt: skip
    if where in places():
        room, plugin, _ = places()[where]
        selected = where in {part.where for run in runs for part in run.parts()}
        selects = plugins.ROOMS[room] if room != "models" else f"{where.partition('.')[0]}.name"
        return f"it is read with {when}" if selected else f"{selects}={plugin!r} would"
    section = where
    if section in networks() and all(section not in run.networks for run in runs):
        objectives = [n for n in plugins.names("objectives") if section in plugin_options("objectives", n).networks]
        return f"section {section} is read with objective.name=" + " or ".join(map(repr, objectives))
    room = "models" if section in networks() else SECTION_ROOMS.get(section, "")
    if not room:
        return f"it is read with {when}"
    role = networks().get(section, "model")
    able = [n for n in plugins.names(room) if (s := plugin_options(room, n, role).shared) is None or name in s]
    taken = [chosen for run in runs for chosen in chosen_names(run, room, section)]
    able = [n for n in able if n not in taken]
    selects = f"{section}.name" if section in networks() else plugins.ROOMS[room]
    words = f"{selects}={' or '.join(map(repr, able))} would" if able else "no plug-in does"
    return f"{words}; it is read with {when}" if when and not able else words


SECTION_ROOMS = {
    "objective": "objectives",
    "data": "datasets.sources",
    "evaluate": "evaluators",
    "report": "reporting.figures",
}


def chosen_names(run: Run, room: str, section: str) -> list[str]:
    """The plug-ins of a room that a run selects."""
    if room == "evaluators":
        return list(run.evaluators)
    if room == "datasets.sources":
        return [name.partition(":")[0] for name in run.sources]
    return [run.config[section].name] if room == "models" else [run.config.objective.name]


def check_together(run: Run) -> None:
    """Raises ConfigError for what sections must be to one another."""
    config = run.config
    batch, microbatches = config.data.batch_size, config.training.microbatches
    expect(batch % microbatches == 0, "training.microbatches", microbatches, f"a divisor of data.batch_size={batch}")
    shards = math.prod(size for axis in ("replica", "data", "fsdp") if (size := config.mesh[axis]) > 0)
    wanted = f"a multiple of {shards} devices x {microbatches} microbatches"
    expect(batch % (shards * microbatches) == 0, "data.batch_size", batch, wanted)
    check_rules(config.mesh.rules)
    for full_name, source in run.sources.items():
        check_argument(full_name, source.argument)
    for section, network in run.networks.items():
        role = run.objective.networks[section]
        if role == "critic":
            able = [n for n in plugins.names("models") if run.model.makes in plugin_options("models", n, role).judges]
            problem = f"one that judges {run.model.makes}, as {config.model.name!r} makes them: {', '.join(able)}"
            expect(run.model.makes in network.judges, f"{section}.name", config[section].name, problem)
        elif run.data_kind:
            makes = {"text": ("sequences",), "images": ("sequences", "images"), "points": ("points",)}[run.data_kind]
            able = [n for n in plugins.names("models") if plugin_options("models", n).makes in makes]
            problem = f"one for {run.data_kind}, which data.name={config.data.name!r} has: {', '.join(able)}"
            expect(network.makes in makes, f"{section}.name", config[section].name, problem)


def check_rules(rules: Any) -> None:
    """Raises ConfigError for what is no (regular expression, axes) pair."""
    for rule in rules:
        pair = isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)
        expect(pair and isinstance(rule[1], tuple | list), "mesh.rules", rule, "(regular expression, axes) pairs")
        try:
            re.compile(rule[0])
        except re.error as error:
            raise ConfigError(f"mesh.rules: {rule[0]!r} is no regular expression: {error}") from None


def check_argument(full_name: str, argument: str) -> None:
    """Raises ConfigError for a source without the argument it needs, or with one that it does not take."""
    name, _, given = full_name.partition(":")
    expect(bool(given) or not argument, "data.name", full_name, f"{name}:{argument}")
    expect(not given or bool(argument), "data.name", full_name, f"{name!r} alone, which takes no argument")
