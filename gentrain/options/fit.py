"""A run that starts from a published model is of that model's shape, and reads by its tokenizer."""

from collections.abc import Collection

from ml_collections import ConfigDict

from gentrain.errors import ConfigError
from gentrain.options.tree import Run, default_config, flatten
from gentrain.published import families


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
        set_all(config, unsaid(config, section, model) | wanted, given, name)
        lines.append(f"{section}: as {name} says, {model} of {options['layers']} layers and width {options['width']}")
        if "data.tokenizer" in Run(config).reads():
            tokenizer = {"data.tokenizer": name, "data.vocab_size": 0}
            set_all(config, tokenizer, given, name)
    return lines


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
