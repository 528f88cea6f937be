"""The tokenizer of a published model, by the library that the world writes them with."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from gentrain.errors import ConfigError, DataError
from gentrain.published import Published, families
from gentrain.published.folder import ends_of, parse_tokenizer

FACTS = ("vocab", "begin", "end", "adds_begin", "config")


class PublishedTokenizer:
    """Text in the tokens of a published model, whose numbers are its own.

    kind: its name, as 'hf:DIR'. content: its tokenizer.json. vocab: rows of the model's table, of which the last may
    stand for nothing; begin, end: the tokens with which a text begins and ends; adds_begin: whether the tokenizer puts
    the first of them before a text; config: its tokenizer_config.json.
    """

    def __init__(self, kind: str, content: bytes, facts: dict[str, Any]):
        """Raises DataError for a damaged tokenizer."""
        self.kind, self.content, self.facts = kind, content, facts
        self.vocab, self.begin, self.end, self.adds_begin, self.config = (facts[name] for name in FACTS)
        try:
            self.library = parse_tokenizer(content)
        except Exception as error:  # the library raises a bare one
            raise DataError(f"the tokenizer of {kind} is damaged: {error}") from error
        self.library.no_truncation()
        self.library.no_padding()

    @functools.cached_property
    def alphabet(self) -> list[str]:
        """What each token stands for; an empty string where it stands for nothing."""
        return [self.library.id_to_token(number) or "" for number in range(self.vocab)]

    def encode(self, text: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raw, ends = text.tobytes(), np.cumsum(lengths).tolist()
        texts = [raw[end - length : end].decode() for end, length in zip(ends, lengths.tolist(), strict=True)]
        tokens = [found.ids for found in self.library.encode_batch(texts, add_special_tokens=False)]
        return np.array([token for document in tokens for token in document], np.int32), np.array([*map(len, tokens)])

    def decode(self, tokens: np.ndarray) -> str:
        return self.library.decode(np.asarray(tokens).tolist(), skip_special_tokens=False)

    def encode_text(self, text: str) -> np.ndarray:
        """The tokens (n,) of one document, without what begins and ends it."""
        return np.array(self.library.encode(text, add_special_tokens=False).ids, np.int32)

    def scored(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a text with what the tokenizer itself adds to them, given the first."""
        tokens = np.array(self.library.encode(text).ids, np.int32)
        inputs = tokens[:-1].copy()
        if self.adds_begin:
            inputs[:1] = self.vocab
        return inputs, tokens[1:]


def of(model: Published) -> PublishedTokenizer:
    """The tokenizer of a published model. Raises ConfigError for a model that has none, or that names no end, or whose
    table has fewer rows than its tokenizer has tokens."""
    name = model.where
    if model.tokenizer is None:
        raise ConfigError(f"data.tokenizer={name!r}: it has no tokenizer.json")
    if model.end is None:
        raise ConfigError(f"data.tokenizer={name!r}: neither its tokenizer nor its config.json names an eos_token")
    content = model.tokenizer()
    facts: dict[str, Any] = {"vocab": 0, "begin": model.begin, "end": model.end, "adds_begin": model.adds_begin}
    facts["config"] = model.tokenizer_config
    count = max(PublishedTokenizer(name, content, facts).library.get_vocab().values()) + 1
    said = model.config
    rows = said.get("vocab_size", count)
    if rows < count:
        raise ConfigError(
            f"data.tokenizer={name!r} does not belong to its weights: it has {count} tokens, their table {rows} rows"
        )
    return PublishedTokenizer(name, content, facts | {"vocab": rows})


def announced(name: str) -> tuple[int, int | None]:
    """How many tokens a published model has, and its end, by its config alone."""
    said, _ = families.facts_of(name)
    return said["vocab_size"], ends_of(said)[1]


def read(folder: Path, facts: dict[str, Any], kind: str, file: str) -> PublishedTokenizer:
    """What `save` wrote. Raises DataError where it is damaged."""
    try:
        content = (folder / file).read_bytes()
        json.loads(content)
        return PublishedTokenizer(kind, content, {name: facts[name] for name in FACTS})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / file} is missing or damaged; put it back, or use a new workdir") from error
