"""A run that starts from a published model is of that model's shape, and reads by its tokenizer."""

from collections.abc import Collection

from ml_collections import ConfigDict

from gentrain.errors import ConfigError
from gentrain.options.tree import Run, declared_fields, default_config, flatten
from gentrain.published import families

OWN = ("param_dtype", "dropout")  # options of a network that no published model says


def fit(config: ConfigDict, given: Collection[str] = ()) -> list[str]:
    """Sets what published models say of the config that starts from them; a line for each of them, to be said.

    given: full names of the keys that a person set beside the config file. Raises ConfigError for one of them that
    disagrees with the model, and for a model that cannot be read.
    """
    lines = []
    for section, name in families.networks(config.init_from):
        model, options = families.options_of(name)
        if section not in config:
            raise ConfigError(f"init_from gives {section!r} the parameters of {name}, and there is no such player")
        wanted = {f"{section}.{key}": value for key, value in ({"name": model} | options).items()}
        set_all(config, unsaid(config, section, given) | wanted, given, name)
        lines.append(f"{section}: as {name} says, {model} of {options['layers']} layers and width {options['width']}")
        if "data.tokenizer" in Run(config).reads():
            tokenizer = {"data.tokenizer": name, "data.vocab_size": 0}
            set_all(config, tokenizer, given, name)
    return lines


def unsaid(config: ConfigDict, section: str, given: Collection[str]) -> dict[str, object]:
    """The defaults of what makes up a network, but for what a person set: a config file was written for another one."""
    fields, default = declared_fields(), flatten(default_config())
    return {
        key: default[key]
        for key in flatten(config)
        if key.startswith(f"{section}.")
        and not fields[key].metadata["may_change"]
        and key.rpartition(".")[2] not in OWN
        and key not in given
    }


def set_all(config: ConfigDict, values: dict[str, object], given: Collection[str], name: str) -> None:
    """Raises ConfigError for a given key that has another value."""
    now = flatten(config)
    for key in values.keys() & set(given):
        if now[key] != values[key]:
            raise ConfigError(f"{key}={now[key]!r}: {name} has {values[key]!r}; leave it out")
    config.update_from_flattened_dict(values)
