"""The whole tree of options: the shared sections with the options of every plug-in in its place, and what a run reads.

seed, steps, sweep, init_from, init_from_vocab
objective.name, objective.real_prior          <objective>.…              options of each objective
model.name, model.width, …                    model.<family>.…           and the same for critic, mediator, …
data.name, data.batch_size, …                 data.<source>.…
evaluate.evaluators, …                        evaluate.<evaluator>.…
report.figures                                report.<figure>.…
optimizer, training, mesh, checkpoint, log, sample
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from gentrain import plugins
from gentrain.errors import ConfigError
from gentrain.options.schema import Options, defaults
from gentrain.options.sections import (
    FIXED,
    DataSection,
    EvaluateSection,
    NetworkSection,
    ObjectiveSection,
    ReportSection,
    RunOptions,
)

SECTIONS: dict[str, type[Options]] = {
    "objectives": ObjectiveSection,
    "models": NetworkSection,
    "datasets.sources": DataSection,
    "evaluators": EvaluateSection,
    "reporting.figures": ReportSection,
}


@functools.cache
def plugin_options(room: str, name: str, role: str = "model") -> Any:
    """The Options class of a plug-in, or its section's own where it declares none; a network's goes by its role."""
    module = plugins.companion(room, name, "options")
    if module is None:
        return SECTIONS[room]
    if role == "critic" and hasattr(module, "CriticOptions"):
        return module.CriticOptions
    return getattr(module, "Options", SECTIONS[room])


@functools.cache
def networks() -> dict[str, str]:
    """Every network section that an objective has, with its role."""
    found: dict[str, str] = {}
    for name in plugins.names("objectives"):
        found |= plugin_options("objectives", name).networks
    return found


@functools.cache
def families(role: str) -> tuple[str, ...]:
    """The families of models that can play a role: any 'model', a model of 'sequences', or a 'critic' of anything."""
    able = {
        "model": lambda options: True,
        "sequences": lambda options: options.makes == "sequences",
        "critic": lambda options: bool(options.judges),
    }[role]
    return tuple(name for name in plugins.names("models") if able(plugin_options("models", name, role)))


@functools.cache
def places() -> dict[str, tuple[str, str, str]]:
    """Full name of a plug-in's sub-section -> (room, plug-in, role), for all plug-ins with options of their own."""
    found: dict[str, tuple[str, str, str]] = {}
    for room, prefix in (
        ("objectives", ""),
        ("datasets.sources", "data."),
        ("evaluators", "evaluate."),
        ("reporting.figures", "report."),
    ):
        found |= {f"{prefix}{name}": (room, name, "model") for name in plugins.names(room)}
    for section, role in networks().items():
        found |= {f"{section}.{name}": ("models", name, role) for name in families(role)}
    return {place: plugin for place, plugin in found.items() if own_fields(*plugin)}


def own_fields(room: str, name: str, role: str) -> list[dataclasses.Field]:
    """The options that a plug-in adds to those of its section."""
    cls = plugin_options(room, name, role)
    return [] if cls is SECTIONS[room] else cls.own_fields()


def default_config() -> ConfigDict:
    """Every option at its default, locked: an unknown key is an error that names the nearest one."""
    config = defaults(RunOptions)
    config.objective = defaults(ObjectiveSection)
    config.data = defaults(DataSection)
    for section in networks():
        config[section] = defaults(NetworkSection)
    for section, cls in FIXED.items():
        config[section] = defaults(cls)
    config.evaluate = defaults(EvaluateSection)
    config.report = defaults(ReportSection)
    for place, plugin in places().items():
        section, _, name = place.rpartition(".")
        (config[section] if section else config)[name] = defaults(Options, own_fields(*plugin))
    config.lock()
    return config


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{'optimizer.learning_rate': 1e-3, …}: every key by its full name."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def as_tuple(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def declared_fields() -> dict[str, dataclasses.Field]:
    """Every key by its full name, with its declaration."""
    sections = {"": RunOptions, "objective.": ObjectiveSection, "data.": DataSection, "evaluate.": EvaluateSection}
    sections |= {"report.": ReportSection} | {f"{section}.": NetworkSection for section in networks()}
    sections |= {f"{section}.": cls for section, cls in FIXED.items()}
    found = {f"{prefix}{field.name}": field for prefix, cls in sections.items() for field in dataclasses.fields(cls)}
    for place, plugin in places().items():
        found |= {f"{place}.{field.name}": field for field in own_fields(*plugin)}
    return found


class Part(NamedTuple):
    """Typed options that a run selects: those of a section, or of a plug-in with its section's.

    where: the full name of the section; context: values that the options' `when` may ask for besides their siblings.
    """

    where: str
    options: Options
    keys: dict[str, dataclasses.Field]  # full name -> declaration, of the options that could be read
    context: dict[str, Any]

    def reads(self) -> set[str]:
        """Full names of the options that are read with these values."""
        fields = dataclasses.fields(self.options)
        values = self.context | {field.name: getattr(self.options, field.name) for field in fields}
        return {key for key, field in self.keys.items() if condition_holds(field, values)}


def condition_holds(field: dataclasses.Field, values: dict[str, Any]) -> bool:
    """Whether a field is read beside these values of its siblings."""
    return all(values.get(name) in allowed for name, allowed in field.metadata["when"].items())


class Run:
    """What one config selects, typed: its objective, networks, sources, evaluators and figures."""

    def __init__(self, config: ConfigDict):
        """Raises ConfigError for a plug-in that does not exist."""
        self.config = config
        self.objective = self.plugin("objectives", "objective", config.objective.name)
        self.networks = {
            section: self.plugin("models", section, config[section].name, role)
            for section, role in self.objective.networks.items()
        }
        self.model = self.networks["model"]
        self.sources = dict(self.read_sources(config.data.name))
        self.evaluators = {name: self.plugin("evaluators", "evaluate", name) for name in config.evaluate.evaluators}
        self.figures = {name: self.plugin("reporting.figures", "report", name) for name in config.report.figures}
        self.fixed = {section: cls.read(config[section]) for section, cls in FIXED.items()}

    def plugin(self, room: str, section: str, name: str, role: str = "model") -> Any:
        """The typed options of a plug-in, which stand in a sub-section where it has any of its own."""
        plugins.require(room, name)
        if room == "models" and name not in families(role):
            raise ConfigError(f"{section}.name={name!r}: expected one of {', '.join(families(role))}")
        parent = self.config if room == "objectives" else self.config[section]
        inner = parent[name] if own_fields(room, name, role) else None
        return plugin_options(room, name, role).read(self.config[section], inner)

    def read_sources(self, full_name: str) -> Iterator[tuple[str, Any]]:
        """(name with its argument, options) of a source and of those that it reads in turn."""
        name, _, argument = full_name.partition(":")
        if name not in plugins.names("datasets.sources"):
            sources = ", ".join(plugins.names("datasets.sources"))
            raise ConfigError(f"data.name={full_name!r}: expected one of {sources}{suggest_source(full_name)}")
        options = self.plugin("datasets.sources", "data", name)
        yield full_name, options
        for other in options.also(argument):
            yield from self.read_sources(other)

    @property
    def data_kind(self) -> str:
        """What the data are, where that is known before they are read: 'text', 'images', 'points' or ''."""
        return self.sources[self.config.data.name].kind(self.config.data.name.partition(":")[2])

    @property
    def known_law(self) -> bool:
        """Whether the data are drawn from a law that is known exactly."""
        return self.sources[self.config.data.name].known_law

    def parts(self) -> Iterator[Part]:
        """Every section and plug-in that the run selects."""
        yield Part("", RunOptions.read(self.config), {f.name: f for f in dataclasses.fields(RunOptions)}, {})
        for section, options in self.fixed.items():
            yield Part(section, options, keys(section, dataclasses.fields(options)), {})
        makes = {"makes": self.model.makes}
        yield from self.selection("objectives", "objective", {self.config.objective.name: self.objective}, makes)
        for section, network in self.networks.items():
            yield from self.selection("models", section, {self.config[section].name: network}, makes)
        yield from self.selection("datasets.sources", "data", self.sources, makes)
        yield from self.selection("evaluators", "evaluate", self.evaluators, makes)
        yield from self.selection("reporting.figures", "report", self.figures, makes)

    def selection(self, room: str, section: str, selected: dict[str, Any], context: dict) -> Iterator[Part]:
        """A section, with those of its options that a selected plug-in reads, and the own options of each plug-in."""
        cls = SECTIONS[room]
        shared = set(cls.always)  # type: ignore[attr-defined]
        for options in selected.values():
            shared |= set(options.shared) if options.shared is not None else {f.name for f in dataclasses.fields(cls)}
        read_here = [field for field in dataclasses.fields(cls) if field.name in shared]
        yield Part(section, cls.read(self.config[section]), keys(section, read_here), context)
        for full_name, options in selected.items():
            name, _, argument = full_name.partition(":")
            place = name if room == "objectives" else f"{section}.{name}"
            own = [] if type(options) is cls else type(options).own_fields()
            yield Part(place, options, keys(place, own), context | {"argument": argument})

    def selected(self, room: str, section: str) -> list[str]:
        """The plug-ins of a room that the run selects in a section."""
        if room == "datasets.sources":
            return [name.partition(":")[0] for name in self.sources]
        if room == "evaluators":
            return list(self.evaluators)
        return list(self.figures) if room == "reporting.figures" else [self.config[section].name]

    def reads(self) -> set[str]:
        """Full names of every option that the run reads."""
        return set[str]().union(*(part.reads() for part in self.parts()))


def keys(where: str, fields: Iterable[dataclasses.Field]) -> dict[str, dataclasses.Field]:
    """Full name -> declaration."""
    return {f"{where}.{field.name}": field for field in fields}


def suggest_source(name: str) -> str:
    """A hint for a data.name that is a path."""
    folder = Path(name).expanduser()
    if "/" in name or folder.suffix in (".txt", ".md") or folder.exists():
        return f"; for a text file or folder of your own: 'text:{name}'"
    return ""
