"""Names of published models, and which model of gentrain each of them is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gentrain import plugins
from gentrain.errors import ConfigError
from gentrain.published.folder import read_config, special_tokens
from gentrain.published.gguf_file import open_gguf
from gentrain.published.named import NAMED

FOLDER, FILE = "hf:", "gguf:"  # what the names of folders and of files begin with


def is_published(name: Any) -> bool:
    """Whether a name of config.init_from or data.tokenizer is a published model's, and not a run's."""
    return isinstance(name, str) and (name.startswith((FOLDER, FILE)) or name in NAMED)


def path_of(name: str) -> Path:
    """Where a folder or a file lies."""
    return Path(name.removeprefix(FOLDER).removeprefix(FILE)).expanduser()


def facts_of(name: str) -> tuple[dict[str, Any], bool]:
    """The config.json of a published model, and whether its tokenizer puts a token before each text, which is taken to
    be so of a model without one. Nothing is fetched. Raises ConfigError where there is no such model."""
    if name in NAMED:
        return NAMED[name].config, NAMED[name].adds_begin
    if name.startswith(FILE):
        found = open_gguf(path_of(name))
        return found.config, found.adds_begin
    folder = path_of(name)
    config = read_config(folder)
    has_tokenizer = (folder / "tokenizer.json").exists()
    return config, special_tokens(folder, config)[2] if has_tokenizer else True


def options_of(name: str) -> tuple[str, dict[str, Any]]:
    """(model.name, options by their names in a network's section) of a published model.

    Raises ConfigError for a family that no model here is of, and for what its model does not do.
    """
    said, adds_begin = facts_of(name)
    known: dict[str, tuple[str, Any]] = {}
    for model in plugins.names("models"):
        if module := plugins.companion("models", model, "published"):
            known |= dict.fromkeys(module.MODEL_TYPES, (model, module))
    kind = said.get("model_type")
    if kind not in known:
        raise ConfigError(f"{name} is of the family {kind!r}: expected one of {', '.join(sorted(known))}")
    model, module = known[kind]
    try:
        return model, module.options_of(said, adds_begin)
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
