"""Names of published models, and which model of gentrain each of them is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gentrain import plugins
from gentrain.errors import ConfigError
from gentrain.published.folder import read_config, special_tokens

FOLDER = "hf:"


def is_published(name: Any) -> bool:
    """Whether a name of config.init_from or data.tokenizer is a published model's, and not a run's."""
    return isinstance(name, str) and name.startswith(FOLDER)


def config_of(name: str) -> dict[str, Any]:
    """The config.json of a published model. Raises ConfigError where there is none."""
    return read_config(Path(name.removeprefix(FOLDER)).expanduser())


def adds_begin(name: str) -> bool:
    """Whether the tokenizer of a published model puts a token before each text; True of a model without one."""
    folder = Path(name.removeprefix(FOLDER)).expanduser()
    return special_tokens(folder, config_of(name))[2] if (folder / "tokenizer.json").exists() else True


def family_of(name: str) -> tuple[str, Any]:
    """(model.name, its module models/<name>_published.py) of a published model.

    Raises ConfigError for a family that no model here is of.
    """
    kind = config_of(name).get("model_type")
    known: dict[str, tuple[str, Any]] = {}
    for model in plugins.names("models"):
        if module := plugins.companion("models", model, "published"):
            known |= dict.fromkeys(module.MODEL_TYPES, (model, module))
    if kind not in known:
        raise ConfigError(f"{name} is of the family {kind!r}: expected one of {', '.join(sorted(known))}")
    return known[kind]


def options_of(name: str) -> tuple[str, dict[str, Any]]:
    """(model.name, options by their names in a network's section) of a published model. Raises ConfigError."""
    model, module = family_of(name)
    try:
        return model, module.options_of(config_of(name), adds_begin(name))
    except ConfigError as error:
        raise ConfigError(f"{name} cannot be read: {error}") from None
    except KeyError as error:
        raise ConfigError(f"{name} cannot be read: its config.json does not say {error}") from None


def networks(init_from: Any) -> Iterator[tuple[str, str]]:
    """(section, published model) of every network that one gives its parameters."""
    if is_published(init_from):
        yield "model", init_from
    elif isinstance(init_from, tuple | list):
        for triple in init_from:
            if isinstance(triple, tuple | list) and len(triple) == 3 and is_published(triple[1]):
                yield "model" if triple[0] == "generator" else triple[0], triple[1]
