"""What models and evaluators must know about the data: text, images or points."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from gentrain.options.tree import as_tuple

Shapes = dict[str, tuple[tuple[int, ...], type]]  # of each array of a batch: its shape and its type


class Beside(NamedTuple):
    """An array that batches of train have beside the examples: (rows, length, size) of a type by its name."""

    name: str
    size: int
    dtype: str


class Texts(NamedTuple):
    """Samples, for people to read."""

    texts: list[str]


class Images(NamedTuple):
    """Samples, for people to look at: (n, height, width, channels) uint8."""

    images: np.ndarray


@dataclass(frozen=True)
class Spec:
    """Sequences of tokens of a vocabulary 0..vocab-1, `length` a row.

    end: the token that closes a document, or None where every row is full. context_vocab: 0, or the number of symbols
    of batch['context'], of which each row has context_shape: (1,) a class label, (n,) symbols, (height, width,
    channels) a picture (256 values). context_names: what the classes are called, or the symbols 1, 2, … (0: padding).
    one_document: whether no row holds two documents. sources: how many a row may be from. beside: what batches of train
    have more.
    """

    kind: ClassVar[str] = "sequences"

    vocab: int
    length: int
    end: int | None = None
    context_vocab: int = 0
    context_shape: tuple[int, ...] = (1,)
    context_names: tuple[str, ...] = ()
    one_document: bool = False
    sources: int = 1
    beside: tuple[Beside, ...] = ()

    def decode(self, tokens: np.ndarray) -> Any:
        """What a person sees of the tokens (n,) of one document, without its end."""
        return " ".join(str(token) for token in np.asarray(tokens).tolist())

    def decode_context(self, context: np.ndarray) -> Any:
        """What a person sees of one row's context: a text, or a picture (height, width, channels) uint8."""
        if self.context_is_picture:
            return np.asarray(context, np.uint8)
        if not self.context_names:
            return str(context)
        if self.context_shape == (1,):
            return self.context_names[int(context[0])]
        return "".join(self.context_names[symbol - 1] for symbol in np.asarray(context).tolist() if symbol)

    @property
    def context_is_picture(self) -> bool:
        """Whether a context is (height, width, channels) values, and not symbols."""
        return len(self.context_shape) == 3

    def batch_shapes(self, rows: int) -> Shapes:
        """Shape and type of each array of a batch."""
        shapes: Shapes = {"tokens": ((rows, self.length), np.int32), "mask": ((rows, self.length), np.bool_)}
        shapes["row"] = ((rows,), np.int32)
        if self.sources > 1:
            shapes["source"] = ((rows,), np.int32)
        if self.context_vocab:
            dtype = np.uint8 if self.context_is_picture else np.int32
            shapes["context"] = ((rows, *self.context_shape), dtype)
        return shapes | {name: ((rows, self.length, size), np.dtype(dtype).type) for name, size, dtype in self.beside}

    @property
    def takes_contexts_from_split(self) -> bool:
        """Whether samples are drawn to the contexts of held-out examples, rather than to each class in turn."""
        return bool(self.context_vocab)

    def nll_in_units(self, nll: float, tokens_per_character: float) -> dict[str, float]:
        """A negative log-likelihood of nats/token in every unit that readers compare, by the name of its metric."""
        return {"nll": nll}

    def unit(self, tokens_per_character: float) -> str:
        """The unit of a negative log-likelihood by token, in words."""
        return "nats/token"

    def show(self, decoded: list[Any]) -> Texts | Images:
        """Decoded samples, as people look at them."""
        return Texts(decoded)


class TextCodec(Protocol):
    """What a tokenizer does for one text: its tokens (n,) without the end; the inputs and the tokens (n,) that its
    log-probability is of; and the text of any tokens."""

    def encode_text(self, text: str) -> np.ndarray: ...

    def scored(self, text: str) -> tuple[np.ndarray, np.ndarray]: ...

    def decode(self, tokens: np.ndarray) -> str: ...


@dataclass(frozen=True)
class TextSpec(Spec):
    """Documents. tokenizer: theirs; None where they are not written as text."""

    kind: ClassVar[str] = "text"

    tokenizer: TextCodec | None = field(default=None, compare=False)

    def decode(self, tokens: np.ndarray) -> str:
        return self.tokenizer.decode(tokens) if self.tokenizer else super().decode(tokens)

    def nll_in_units(self, nll: float, tokens_per_character: float) -> dict[str, float]:
        """nats/token, perplexity, nats and bits a character; the end of a document counts as a character."""
        per_char = nll * tokens_per_character
        return {
            "nll": nll,
            "perplexity": math.exp(min(nll, 700.0)),
            "nats_per_char": per_char,
            "bits_per_char": per_char / math.log(2),
        }

    def unit(self, tokens_per_character: float) -> str:
        return "nats/char" if tokens_per_character == 1 else "nats/token"


@dataclass(frozen=True)
class ImageSpec(Spec):
    """Images as rows of values, row-major, a pixel's channels side by side; shape: (height, width, channels)."""

    kind: ClassVar[str] = "images"

    shape: tuple[int, ...] = ()

    @property
    def takes_contexts_from_split(self) -> bool:
        return bool(self.context_vocab) and self.context_shape != (1,)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        values = np.minimum(np.asarray(tokens), self.vocab - 1) * (255 / (self.vocab - 1))
        return np.round(values).astype(np.uint8).reshape(self.shape)

    def pixels(self, tokens: Any) -> Any:
        """Images as numbers in [-1, 1]: tokens (n, length) -> (n, height, width, channels) float32."""
        return (2 * tokens.astype("float32") / (self.vocab - 1) - 1).reshape(-1, *self.shape)

    def nll_in_units(self, nll: float, tokens_per_character: float) -> dict[str, float]:
        """nats a value, perplexity, bits a dimension and nats an image."""
        return {
            "nll": nll,
            "perplexity": math.exp(min(nll, 700.0)),
            "bits_per_dim": nll / math.log(2),
            "nats_per_image": nll * self.length,
        }

    def show(self, decoded: list[Any]) -> Texts | Images:
        return Images(np.stack(decoded))


@dataclass(frozen=True)
class PointSpec(Spec):
    """Points of `length` numbers; there are no tokens, and vocab is 0."""

    kind: ClassVar[str] = "points"

    def batch_shapes(self, rows: int) -> Shapes:
        shapes: Shapes = {"points": ((rows, self.length), np.float32), "mask": ((rows,), np.bool_)}
        return {**shapes, "row": ((rows,), np.int32)}


KINDS: dict[str, type[Spec]] = {cls.kind: cls for cls in (Spec, TextSpec, ImageSpec, PointSpec)}


def to_json(spec: Spec) -> dict[str, Any]:
    """The spec as JSON holds it, without its tokenizer."""
    return {"kind": spec.kind, **{name: getattr(spec, name) for name in names_of(type(spec))}}


def from_json(content: Mapping[str, Any], tokenizer: TextCodec | None) -> Spec:
    """What to_json was given, with this tokenizer. Raises ValueError and KeyError for anything else."""
    cls: Any = KINDS[content["kind"]]
    values = {name: as_tuple(content[name]) for name in names_of(cls)}
    values["beside"] = tuple(Beside(*array) for array in values["beside"])
    return cls(**values, **({"tokenizer": tokenizer} if cls is TextSpec else {}))


def names_of(cls: type[Spec]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.name != "tokenizer"]
