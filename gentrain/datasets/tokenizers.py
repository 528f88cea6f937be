"""Text to tokens and back: learned on train, then kept in the workdir so that a vocabulary cannot drift."""

import functools
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gentrain import files
from gentrain.datasets import fetch, published_tokenizer, store
from gentrain.datasets.published_tokenizer import PublishedTokenizer
from gentrain.datasets.spec import TextCodec
from gentrain.datasets.store import Corpus
from gentrain.errors import ConfigError, DataError
from gentrain.files import write_bytes
from gentrain.published import families

UNKNOWN_CHARACTER = "\ufffd"
UNKNOWN_WORD = "<unk>"
ESCAPE, SPACE = "\ue000", "\u2581"
PIECES = 8192  # of a sentencepiece vocabulary, unless the config says
KINDS = ("bytes", "chars", "words", "sentencepiece")
JSON, MODEL = "tokenizer.json", "tokenizer.model"


class Tokenizer(TextCodec, Protocol):
    """Tokens are 0..vocab-1, alphabet says what each stands for; token number `end` ends a document.

    encode(text, lengths) -> (tokens, lengths): documents side by side in one array of UTF-8, with the bytes of each, to
    their tokens side by side, with the tokens of each. decode(tokens (n,)) -> str takes any numbers.
    """

    kind: str

    @property
    def alphabet(self) -> list[str]: ...

    @property
    def vocab(self) -> int: ...

    @property
    def end(self) -> int: ...

    def encode(self, text: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class Learned:
    """What tokenizers that are learned here have in common: `symbols` tokens, and the end after them."""

    symbols: int

    @property
    def vocab(self) -> int:
        return self.symbols + 1

    @property
    def end(self) -> int:
        return self.symbols

    @property
    def begin(self) -> int:
        """The token in whose place a published model has what begins a sequence: the end, which no input is."""
        return self.symbols

    def encode(self, text: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def encode_text(self, text: str) -> np.ndarray:
        """The tokens (n,) of one document, without its end. Raises DataError for text that the tokenizer cannot
        write."""
        raw = np.frombuffer(text.encode(), np.uint8)
        return np.asarray(self.encode(raw, np.array([len(raw)]))[0])

    def scored(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a text and its end, given nothing."""
        tokens = np.append(self.encode_text(text), self.end)
        return np.append(self.vocab, tokens[:-1]), tokens


def documents(text: np.ndarray, lengths: np.ndarray) -> Iterator[str]:
    """The documents of one array of UTF-8."""
    raw, start = text.tobytes(), 0
    for length in lengths.tolist():
        yield raw[start : start + length].decode()
        start += length


def codepoints(text: np.ndarray) -> np.ndarray:
    """UTF-8 (bytes,) uint8 -> (characters,) uint32."""
    return np.frombuffer(text.tobytes().decode().encode("utf-32-le"), np.uint32)


def characters(text: np.ndarray) -> np.ndarray:
    """True on the first byte of each character of UTF-8."""
    return (text & 0xC0) != 0x80


def side_by_side(tokens: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of all documents in one array, and how many each has."""
    lengths = [len(document) for document in tokens]
    return np.array([token for document in tokens for token in document], np.int32), np.array(lengths)


class Bytes(Learned):
    """The bytes of UTF-8."""

    kind, symbols = "bytes", 256

    def __init__(self) -> None:
        self.alphabet = [f"<0x{byte:02X}>" for byte in range(self.symbols)]

    def encode(self, text: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return text, lengths

    def decode(self, tokens: np.ndarray) -> str:
        tokens = np.asarray(tokens)
        return tokens[tokens < 256].astype(np.uint8).tobytes().decode(errors="replace")


class Chars(Learned):
    """Characters by their codepoint; one that train lacks is unknown, if the alphabet has the unknown character."""

    kind = "chars"

    def __init__(self, alphabet: list[str]):
        self.alphabet, self.symbols = alphabet, len(alphabet)
        self.points = np.array([ord(c) for c in [*alphabet, UNKNOWN_CHARACTER]], np.uint32)
        unknown = alphabet.index(UNKNOWN_CHARACTER) if UNKNOWN_CHARACTER in alphabet else -1
        self.table = np.full(0x110000, unknown, np.int32)
        self.table[self.points[:-1]] = np.arange(len(alphabet))

    @classmethod
    def learn(cls, sources: list[Corpus]) -> "Chars":
        """The characters of train, and the unknown one where other splits have characters that train lacks."""
        occurs = {split: np.zeros(0x110000, bool) for split in store.SPLITS}
        for split in store.SPLITS:
            for source in sources:
                for text, _ in store.blocks(source.splits[split]):
                    occurs[split][codepoints(text)] = True
        alphabet = {chr(point) for point in np.flatnonzero(occurs["train"])}
        lacking = (occurs["valid"] | occurs["test"]) & ~occurs["train"]
        return cls(sorted(alphabet | {UNKNOWN_CHARACTER} if lacking.any() else alphabet))

    def encode(self, text: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = codepoints(text)
        tokens = self.table[points]
        if (tokens < 0).any():
            raise DataError(
                f"the text has the character {chr(points[np.argmin(tokens)])!r}, which this workdir's tokenizer lacks: "
                "the data changed, use a new workdir"
            )
        edges = np.concatenate([[0], np.cumsum(characters(text))])[np.concatenate([[0], np.cumsum(lengths)])]
        return tokens, np.diff(edges)

    def decode(self, tokens: np.ndarray) -> str:
        return self.points[np.minimum(tokens, self.symbols)].tobytes().decode("utf-32-le")


ASCII_WORDS = re.compile(r"<unk>|\w+(?:['-]\w+)*|[^\w\s]")


@functools.cache
def word_pattern() -> re.Pattern[str]:
    """ASCII_WORDS for any text: a word, or one symbol.

    What Unicode calls marks (vowel signs, points, accents that are characters of their own), which \\w leaves out, go
    with what they modify, and so do the joiners of letters (U+200C, U+200D) and of a symbol's parts (U+200D).
    """
    points = [point for point in range(0x300, 0xE01F0) if unicodedata.category(chr(point)).startswith("M")]
    starts = [point for point in points if unicodedata.category(chr(point - 1))[0] != "M"]
    ends = [point for point in points if unicodedata.category(chr(point + 1))[0] != "M"]
    marks = "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))
    letters = rf"\w[\w{marks}\u200c\u200d]*"
    symbol = rf"[^\w\s][{marks}]*"
    return re.compile(rf"<unk>|{letters}(?:['-]{letters})*|{symbol}(?:\u200d{symbol})*")


def split_words(text: str) -> list[str]:
    """Words and punctuation marks of a text: in ASCII there are no marks."""
    return (ASCII_WORDS if text.isascii() else word_pattern()).findall(text)


class Words(Learned):
    """Words and punctuation marks; white space is lost: decode puts single spaces, none before closing punctuation.

    Text is not normalised: an accent that is a character of its own stays one, and makes another word.
    """

    kind = "words"

    def __init__(self, alphabet: list[str]):
        self.alphabet, self.symbols = alphabet, len(alphabet)
        self.table = {word: i for i, word in enumerate(alphabet)}

    @classmethod
    def learn(cls, sources: list[Corpus], vocab_size: int) -> "Words":
        """The commonest words of train, vocab_size with the unknown word (0: all); equally common ones by alphabet."""
        counts: Counter[str] = Counter()
        for source in sources:
            for block in store.blocks(source.splits["train"]):
                for document in documents(*block):
                    counts.update(split_words(document))
        counts.pop(UNKNOWN_WORD, None)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([UNKNOWN_WORD, *(ranked[: vocab_size - 1] if vocab_size else ranked)])

    def encode(self, text: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unknown = self.table[UNKNOWN_WORD]
        words = [split_words(document) for document in documents(text, lengths)]
        return side_by_side([[self.table.get(word, unknown) for word in document] for document in words])

    def decode(self, tokens: np.ndarray) -> str:
        words = [self.alphabet[t] if t < self.symbols else UNKNOWN_WORD for t in np.asarray(tokens).tolist()]
        return re.sub(r" ([,.;:!?)\]])", r"\1", " ".join(words))


def escape(text: str) -> str:
    """The text without U+2581; see SentencePiece."""
    return text.replace(ESCAPE, f"{ESCAPE}0").replace(SPACE, f"{ESCAPE}1")


class SentencePiece(Learned):
    """Unigram pieces without normalisation; characters it lacks are spelt in bytes, so any text comes back the same.

    SentencePiece writes U+2581 for a space. That character itself goes through it as ESCAPE and '1', and ESCAPE as
    ESCAPE and '0'.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes):
        import sentencepiece

        self.model, self.processor = model, sentencepiece.SentencePieceProcessor(model_proto=model)
        self.symbols = self.processor.vocab_size()
        self.alphabet = self.processor.id_to_piece(list(range(self.symbols)))

    @classmethod
    def learn(cls, sources: list[Corpus], vocab_size: int) -> "SentencePiece":
        """Pieces of train, vocab_size of them (0: PIECES). Raises ConfigError for a number that is too small."""
        import sentencepiece

        def lines() -> Iterator[str]:
            # The trainer skips sentences of more than some thousand bytes, which documents may be.
            for source in sources:
                for block in store.blocks(source.splits["train"]):
                    for document in documents(*block):
                        yield from escape(document).split("\n")

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines(),
                model_writer=model,
                vocab_size=vocab_size or PIECES,
                hard_vocab_limit=False,  # a small text may have fewer pieces
                input_sentence_size=2_000_000,
                shuffle_input_sentence=False,
                character_coverage=1.0,
                byte_fallback=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConfigError(f"sentencepiece refuses data.vocab_size = {vocab_size}: {reason}") from error
        return cls(model.getvalue())

    def encode(self, text: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return side_by_side(self.processor.encode([escape(document) for document in documents(text, lengths)]))

    def decode(self, tokens: np.ndarray) -> str:
        tokens = np.asarray(tokens)
        text = self.processor.decode(tokens[tokens < self.symbols].tolist())
        return text.replace(f"{ESCAPE}1", SPACE).replace(f"{ESCAPE}0", ESCAPE)


def obtain(sources: list[Corpus], kind: str, vocab_size: int, workdir: Path | None) -> Tokenizer:
    """The workdir's tokenizer if it has one, else one learned on the sources' train and kept there.

    Raises DataError where the workdir's is damaged, or of another kind or size than the config asks for.
    """
    vocab_size = vocab_size if kind in ("words", "sentencepiece") else 0
    if workdir is None or not (workdir / JSON).exists():
        if families.is_published(kind):
            tokenizer = published_tokenizer.of(fetch.published(kind))
            if workdir is not None:
                save(tokenizer, vocab_size, workdir)
            return tokenizer
        key = ["tokenizer", kind, vocab_size, [source.digest for source in sources]]
        folder = store.cached(key, lambda folder: save(learn(sources, kind, vocab_size), vocab_size, folder))
        if workdir is not None:
            workdir.mkdir(parents=True, exist_ok=True)
            for name in (MODEL, JSON):  # the JSON last: it tells that the tokenizer is whole
                if (folder / name).exists():
                    write_bytes(workdir / name, (folder / name).read_bytes())
    else:
        folder = workdir
    return load(folder, kind, vocab_size)


def digest(tokenizer: Tokenizer) -> str:
    """Of all that says which text has which tokens."""
    if isinstance(tokenizer, PublishedTokenizer):
        return store.digest_of([tokenizer.content.hex(), tokenizer.facts])
    model = tokenizer.model.hex() if isinstance(tokenizer, SentencePiece) else ""
    return store.digest_of([tokenizer.kind, tokenizer.alphabet, model])


def find(workdir: Path) -> Tokenizer | None:
    """The tokenizer that a workdir keeps; None where it has none. Raises DataError where it is damaged."""
    if not (workdir / JSON).is_file():
        return None
    content = read_content(workdir)
    return load(workdir, content["kind"], content["vocab_size"])


def learn(sources: list[Corpus], kind: str, vocab_size: int) -> Tokenizer:
    """A tokenizer of this kind, learned on the sources' train."""
    if kind == "bytes":
        return Bytes()
    if kind == "chars":
        return Chars.learn(sources)
    return Words.learn(sources, vocab_size) if kind == "words" else SentencePiece.learn(sources, vocab_size)


def save(tokenizer: Tokenizer, vocab_size: int, folder: Path) -> None:
    """Writes a tokenizer into the folder, with the vocab_size that it was learned for."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"kind": tokenizer.kind, "vocab_size": vocab_size, "alphabet": []}
    if isinstance(tokenizer, SentencePiece):
        write_bytes(folder / MODEL, tokenizer.model)
    elif isinstance(tokenizer, PublishedTokenizer):
        write_bytes(folder / MODEL, tokenizer.content)
        content["published"] = tokenizer.facts
    elif isinstance(tokenizer, Chars | Words):
        content["alphabet"] = tokenizer.alphabet
    write_bytes(folder / JSON, json.dumps(content, indent=0).encode())


def read_content(folder: Path) -> dict[str, Any]:
    """kind, vocab_size and alphabet of the tokenizer in a folder. Raises DataError where they cannot be read."""
    try:
        with files.open_regular(folder / JSON) as file:
            content = json.loads(file.read())
        kind, size, alphabet = content["kind"], content["vocab_size"], content["alphabet"]
        words = all(isinstance(symbol, str) and (kind != "chars" or len(symbol) == 1) for symbol in alphabet)
        if not (kind in KINDS or families.is_published(kind)) or not isinstance(size, int) or not words:
            raise ValueError("its content is no tokenizer's")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / JSON} is damaged ({error}); put it back from a copy, or use a new workdir"
        ) from error
    return content


def load(folder: Path, kind: str, vocab_size: int) -> Tokenizer:
    """The tokenizer that a folder has. Raises DataError where it is damaged, or of another kind or size."""
    content = read_content(folder)
    saved, alphabet = (content["kind"], content["vocab_size"]), content["alphabet"]
    if saved != (kind, vocab_size):
        raise DataError(
            f"{folder / JSON} is a {saved[0]!r} tokenizer with vocab_size {saved[1]}, but the config asks for "
            f"{kind!r} with {vocab_size}: set data.tokenizer and data.vocab_size back, or use a new workdir"
        )
    if families.is_published(kind):
        return published_tokenizer.read(folder, content.get("published") or {}, kind, MODEL)
    if kind == "sentencepiece":
        try:
            with files.open_regular(folder / MODEL) as file:
                return SentencePiece(file.read())
        except (OSError, RuntimeError) as error:
            raise DataError(f"{folder / MODEL} is missing or damaged; put it back, or use a new workdir") from error
    if kind == "bytes":
        return Bytes()
    return Chars(alphabet) if kind == "chars" else Words(alphabet)


def encode(raw: Corpus, tokenizer: Tokenizer) -> Corpus:
    """The corpus in tokens, the end token after each document; contexts are the raw corpus's own."""

    def make(folder: Path) -> None:
        with store.Writer(folder, np.min_scalar_type(tokenizer.vocab)) as writer:
            for split in store.SPLITS:
                for text, lengths in store.blocks(raw.splits[split]):
                    tokens, counts = tokenizer.encode(text, lengths)
                    ends = np.cumsum(counts + 1) - 1
                    closed = np.full(len(tokens) + len(counts), tokenizer.end, writer.dtype)
                    closed[np.delete(np.arange(len(closed)), ends)] = tokens
                    writer.extend(split, closed, counts + 1, int(characters(text).sum()) + len(counts))
            writer.finish(kind="text")

    encoded = store.read(store.cached(["encoded", raw.digest, digest(tokenizer)], make))
    splits = {
        split: arrays._replace(labels=raw.splits[split].labels, contexts=raw.splits[split].contexts)
        for split, arrays in encoded.splits.items()
    }
    return encoded._replace(splits=splits, digest=store.digest_of([raw.digest, encoded.digest]))
