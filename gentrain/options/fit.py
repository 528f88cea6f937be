"""A run that starts from a published model is of that model's shape, and reads by its tokenizer; a second network that
another run gives is as it is there."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gentrain.errors import ConfigError
from gentrain.files import require_json
from gentrain.options.tree import Run, as_tuple, default_config, flatten
from gentrain.published import families


def fit(config: ConfigDict, given: Collection[str] = ()) -> list[str]:
    """Sets what published models say of the config that starts from them; a line for each of them, to be said.

    given: full names of the keys that a person set beside the config file. Raises ConfigError for one of them that
    disagrees with the model, and for a model that cannot be read.
    """
    lines = [as_in_run(config, *triple, given) for triple in from_runs(config.init_from)]
    for section, name in families.networks(config.init_from):
        model, options = families.options_of(name)
        if section not in config:
            raise ConfigError(f"init_from gives {section!r} the parameters of {name}, and there is no such player")
        wanted = {f"{section}.{key}": value for key, value in ({"name": model} | options).items()}
        set_all(config, unsaid(config, section, model) | wanted, given, name)
        lines.append(f"{section}: as {name} says, {model} of {options['layers']} layers and width {options['width']}")
        if "data.tokenizer" in Run(config).reads():
            tokenizer = {"data.tokenizer": name, "data.vocab_size": 0}
            set_all(config, tokenizer, given, name)
    return lines


def from_runs(init_from: Any) -> Iterator[tuple[str, str, str]]:
    """(player, workdir, its player) triples of networks beside the generator that other runs give, which are there."""
    for triple in init_from if isinstance(init_from, tuple | list) else ():
        whole = isinstance(triple, tuple | list) and len(triple) == 3 and all(isinstance(word, str) for word in triple)
        if whole and triple[0] != "generator" and (Path(triple[1]) / "config.json").exists():
            yield tuple(triple)


def as_in_run(config: ConfigDict, player: str, workdir: str, source: str, given: Collection[str]) -> str:
    """Makes a player's network that of a player of another run; a line to be said. Raises ConfigError where there is no
    such network, and CheckpointError where the run's config.json is damaged."""
    there, section = require_json(Path(workdir) / "config.json"), "model" if source == "generator" else source
    wanted = {key: value for key, value in there.items() if key.startswith(f"{section}.")}
    if player not in config or not wanted:
        raise ConfigError(f"init_from gives {player!r} the {source} of {workdir}: there is none")
    renamed = {f"{player}.{key.partition('.')[2]}": as_tuple(value) for key, value in wanted.items()}
    known = flatten(config)
    set_all(config, {key: value for key, value in renamed.items() if key in known}, given, workdir)
    return f"{player}: as in {workdir}, {there[f'{section}.name']} of width {there[f'{section}.width']}"


def unsaid(config: ConfigDict, section: str, model: str) -> dict[str, object]:
    """The defaults of other families' options: a config file was written for one of them."""
    default, own = flatten(default_config()), (f"{section}.{model}.", f"{section}.")
    return {
        key: default[key]
        for key in flatten(config)
        if key.startswith(own[1]) and key.count(".") > 1 and not key.startswith(own[0])
    }


def set_all(config: ConfigDict, values: dict[str, object], given: Collection[str], name: str) -> None:
    """Raises ConfigError for a given key that has another value."""
    now = flatten(config)
    for key in values.keys() & set(given):
        if now[key] != values[key]:
            raise ConfigError(f"{key}={now[key]!r}: {name} has {values[key]!r}; leave it out")
    config.update_from_flattened_dict(values)
