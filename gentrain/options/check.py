"""Refuses configs that cannot be, before JAX is imported: types and ranges, then who reads what, then combinations."""

import copy
import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from gentrain import plugins
from gentrain.errors import ConfigError
from gentrain.options.fit import fit
from gentrain.options.schema import check_value, expect
from gentrain.options.tree import (
    Run,
    declared_fields,
    default_config,
    families,
    flatten,
    networks,
    places,
    plugin_options,
)


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
        check_sources(run)
        check_networks(run)
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
    for overrides, name in zip(config.sweep, variant_names(config.sweep), strict=True):
        expect(bool(overrides), "sweep", {}, "variants that say what sets them apart")
        variant = copy.deepcopy(config)
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
        fit(variant, overrides)
        shorten_warmup(variant)
        if name in found:
            raise ConfigError(f"sweep: two variants are named {name!r}; let them differ in a key, such as seed")
        found[name] = variant
    return found


def variant_names(sweep: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each variant; without init_from, which is long, unless two would be named alike."""
    short = [variant_name({key: value for key, value in each.items() if key != "init_from"}) for each in sweep]
    return short if all(short) and len(set(short)) == len(short) else [variant_name(each) for each in sweep]


def variant_name(overrides: Mapping[str, Any]) -> str:
    """'learning_rate=0.01,seed=1': fit for a folder."""
    return ",".join(f"{key.rsplit('.')[-1]}={short(value)}" for key, value in overrides.items())


def short(value: Any) -> str:
    return re.sub(r"[^\w.+-]+", "_", f"{value:g}" if isinstance(value, float) else str(value)).strip("_")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say of a key that there is not: the nearest one, by its last word or by all of it."""
    known = list(known)
    same_end = [name for name in known if name.rsplit(".")[-1] == key.rsplit(".")[-1]]
    nearest = sorted(same_end, key=len) or difflib.get_close_matches(key, known, 1, 0)
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
        each = zip(config.sweep, variant_names(config.sweep), runs, strict=True)
        readers = {name: overrides for overrides, name, run in each if key in run.reads()}
        if readers and all(key in overrides for overrides in readers.values()):
            names = list(readers)
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


def readers(key: str, field: dataclasses.Field, runs: list[Run]) -> str:
    """Who would read an option that nothing selected reads: another plug-in, or another value beside it."""
    section, _, name = key.rpartition(".")
    condition = f"it is read with {when(section, field)}"
    if section in places():
        room, plugin, _ = places()[section]
        selected = any(part.where == section for run in runs for part in run.parts())
        selects = f"{section.partition('.')[0]}.name" if room == "models" else plugins.ROOMS[room]
        return condition if selected else f"{selects}={plugin!r} would"
    if section in networks() and all(section not in run.networks for run in runs):
        objectives = [n for n in plugins.names("objectives") if section in plugin_options("objectives", n).networks]
        return f"section {section} is read with objective.name={' or '.join(map(repr, objectives))}"
    room = "models" if section in networks() else SECTION_ROOMS.get(section, "")
    if not room:
        return condition
    role, selects = networks().get(section, "model"), f"{section}.name" if room == "models" else plugins.ROOMS[room]
    shared = {plugin: plugin_options(room, plugin, role).shared for plugin in plugins.names(room)}
    able = [plugin for plugin, names in shared.items() if names is None or name in names]
    if field.metadata["when"] and any(plugin in able for run in runs for plugin in run.selected(room, section)):
        return condition
    return f"{selects}={' or '.join(map(repr, able))} would" if able else "no plug-in does"


def when(section: str, field: dataclasses.Field) -> str:
    """The condition under which an option is read, in words."""
    words = []
    for name, allowed in field.metadata["when"].items():
        values = " or ".join(map(repr, allowed))
        if name == "makes":
            words.append(f"a model of {' or '.join(allowed)}")
        else:
            words.append(f"data.name=…:{values}" if name == "argument" else f"{section}.{name}={values}")
    return ", ".join(words)


SECTION_ROOMS = {
    "objective": "objectives",
    "data": "datasets.sources",
    "evaluate": "evaluators",
    "report": "reporting.figures",
}


def check_sources(run: Run) -> None:
    """Raises ConfigError for sources of data that cannot be."""
    for full_name, source in run.sources.items():
        name, _, argument = full_name.partition(":")
        expect(bool(argument) or not source.argument, "data.name", full_name, f"{name}:{source.argument}")
        alone = f"{name!r} alone, which takes no argument"
        expect(not argument or bool(source.argument), "data.name", full_name, alone)
        source.check(run, f"data.{name}")


def check_networks(run: Run) -> None:
    """Raises ConfigError for a model that does not make what the data are, or a critic that does not judge it."""
    makers = {"text": ("sequences",), "images": ("sequences", "images"), "points": ("points",)}
    config, kind, makes = run.config, run.data_kind, run.model.makes
    for section in run.networks:
        role, family = run.objective.networks[section], config[section].name
        options = {name: plugin_options("models", name, role) for name in families(role)}
        if role == "critic":
            able = [name for name, cls in options.items() if makes in cls.judges]
            needs = f"one that judges {makes}, as {config.model.name!r} makes them"
        elif kind:
            able = [name for name, cls in options.items() if cls.makes in makers[kind]]
            needs = f"one for {kind}, which data.name={config.data.name!r} has"
        else:
            able, needs = list(options), f"one for the role of {role}"
        expect(family in able, f"{section}.name", family, f"{needs}: {', '.join(able)}")


def check_together(run: Run) -> None:
    """Raises ConfigError for a batch that does not divide over the mesh, and for a teacher that nobody learns from."""
    config = run.config
    learns = config.data.taught == "" or run.objective.has_teacher
    able = [name for name in plugins.names("objectives") if plugin_options("objectives", name).has_teacher]
    expect(learns, "data.taught", config.data.taught, f"'', or objective.name={' or '.join(map(repr, able))}")
    batch, microbatches = config.data.batch_size, config.training.microbatches
    expect(batch % microbatches == 0, "training.microbatches", microbatches, f"a divisor of data.batch_size={batch}")
    shards = math.prod(size for axis in ("replica", "data", "fsdp") if (size := config.mesh[axis]) > 0)
    wanted = f"a multiple of {shards} devices x {microbatches} microbatches"
    expect(batch % (shards * microbatches) == 0, "data.batch_size", batch, wanted)
