"""Data: a name in the config -> batch(step), a pure function of the seed and the step. Only here is Grain or TFDS.

sources and prepared read each source once into a raw corpus; tokenizers turn it into tokens; rows cuts those into rows
and orders them.
"""

import functools
import math
import queue
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from gentrain.data import corpus, sources, tokenizers
from gentrain.data.corpus import Corpus, Writer
from gentrain.data.rows import Part, Pass, Shuffled, drawn, lay_out, proportions
from gentrain.errors import ConfigError, DataError

FIX_EMPTY = "raise config.data.valid_fraction and test_fraction, or give more examples"
Batch = dict[str, np.ndarray]


class Spec(NamedTuple):
    """What models and evaluators must know about the data.

    vocab: tokens are 0..vocab-1. length: tokens a row. end: the token that closes a document, or None where every row
    is full. kind: 'text', 'image' or 'points' (vocab 0, length the dimension). decode: tokens (n,) of one document
    without its end -> str for text, uint8 (height, width, channels) for images. context_vocab: 0, or the number of
    symbols of batch['context'], of which each row has context_shape: (1,) a class label, (n,) symbols, (height, width,
    channels) a picture (256 values). decode_context: one row's context -> str, or uint8 (height, width, channels).
    shape: (height, width, channels) of images, () of the rest.
    """

    vocab: int
    length: int
    end: int | None
    kind: str
    decode: Callable[[np.ndarray], Any]
    context_vocab: int = 0
    context_shape: tuple[int, ...] = (1,)
    decode_context: Callable[[np.ndarray], Any] = str
    shape: tuple[int, ...] = ()


class Source(Protocol):
    """Random access to batches; there is no iterator state, so a step number is the whole data position.

    batch(step) is this process's rows of global batch number `step`, a dict of arrays:
    tokens (rows, length) int32, targets, the end token included, padded with 0;
    mask (rows, length) bool, False on padding;
    row (rows,) int32, the row's number in the global batch, from which per-example keys are made;
    points (rows, length) float32 in place of tokens, with mask (rows,), where the data are points;
    context (rows, *spec.context_shape), only where spec.context_vocab > 0: int32, or uint8 where it is a picture.
    """

    def batch(self, step: int) -> Batch: ...


class Split(Protocol):
    """One pass over a split in file order: batch(0..batches-1), the last one filled up with rows that are masked out.

    tokens: targets in the split; characters: what a reader counts instead (characters of the text plus one for each
    document's end; values of an image), so that nats/character = nats/token * tokens / characters.
    documents: (tokens, offsets): all tokens in one array, document i, its end token included, being
    tokens[offsets[i]:offsets[i+1]].
    """

    batches: int
    tokens: int
    characters: int

    @property
    def documents(self) -> tuple[np.ndarray, np.ndarray]: ...

    def batch(self, step: int) -> Batch: ...


class Data(NamedTuple):
    spec: Spec
    train: Source
    split: Callable[[str], Split]  # 'train', 'valid' or 'test'
    # What was found: examples, tokens, a digest, and each source's share and epochs over the run.
    summary: dict[str, Any]


def build(config: Any, workdir: Path | None, rows: np.ndarray | None = None) -> Data:
    """The data of a config: uses config.seed, config.steps and config.data.

    workdir: where the tokenizer is kept and found again; None: nothing is written but the cache. rows: the rows of the
    global batch that this process reads, None for all. Raises ConfigError and DataError.
    """
    data = config.data
    check(data)
    rows = np.arange(data.batch_size) if rows is None else np.asarray(rows)
    if data.name.startswith("world:"):
        return from_world(config, rows)
    triples = (
        [(str(n), float(w), int(r)) for n, w, r in data.sources] if data.name == "mixture" else [(data.name, 1.0, 0)]
    )
    names = [name for name, _, _ in triples]
    raw = load(names, data)
    context = contexts(names, raw) if data.conditional else {}
    corpora, spec = (texts if raw[0].meta["kind"] == "text" else images)(names, raw, data, workdir)
    spec = spec._replace(**context)
    if not data.conditional:
        corpora = [without_contexts(found) for found in corpora]

    layout = data.layout if spec.kind == "text" else "pad"

    def parts(split: str) -> list[Part]:
        return [lay_out(tokenised.splits[split], spec.length, layout) for tokenised in corpora]

    @functools.cache
    def split(name: str) -> Split:
        if name not in corpus.SPLITS:
            raise ConfigError(f"no split is named {name!r}; there are: {', '.join(corpus.SPLITS)}")
        found = Pass(parts(name), data.batch_size, rows, spec.length)
        if not found.batches:
            raise DataError(f"the split {name!r} of {', '.join(names)} is empty; {FIX_EMPTY}")
        return found

    train = parts("train")
    shares = proportions([weight for _, weight, _ in triples])
    draws = drawn(config.steps * data.batch_size, shares)
    shown: dict[str, Any] = {}
    summary = {
        "examples": sum(part.rows for part in train),
        "documents": sum(len(part.offsets) - 1 for part in train),
        "tokens": sum(len(part.tokens) for part in train),
        "vocab": spec.vocab,
        "length": spec.length,
        "digest": " ".join(found.digest for found in corpora),
        "sources": shown,
    }
    for (name, _, repeats), part, count in zip(triples, train, draws.tolist(), strict=True):
        epochs = count / part.rows
        if repeats and epochs > repeats:
            raise DataError(
                f"{name} has {part.rows} train examples and {config.steps} steps of {data.batch_size} draw {count}, "
                f"{epochs:.2f} passes, but config.data.sources allows {repeats}: lower its weight or config.steps"
            )
        share = count / max(1, int(draws.sum()))
        shown[name] = {"share": share, "examples": part.rows, "drawn": count, "epochs": epochs}
    return Data(spec, Shuffled(train, shares, config.seed, data.batch_size, rows, spec.length), split, summary)


def from_world(config: Any, rows: np.ndarray) -> Data:
    """Samples of a distribution that is known exactly, each read by its number; nothing is stored."""
    from gentrain import worlds  # brings JAX with it, which no other data needs
    from gentrain.data import world

    name, options, size = config.data.name, config.world, config.data.batch_size
    known = worlds.of(config, "data")
    drawn = {
        split: world.Drawn(known, config.seed, split, options.examples if split == "train" else 0, size, rows)
        for split in corpus.SPLITS
    }
    if isinstance(known, worlds.SequenceWorld):
        vocab, length, kind = known.vocab, known.length, "text"
    else:
        vocab, length, kind = 0, known.dimension, "points"
    spec = Spec(vocab, length, None, kind, lambda tokens: " ".join(str(token) for token in tokens))
    draws = config.steps * size
    epochs = draws / options.examples if options.examples else 1.0
    summary = {"documents": options.examples or draws, "tokens": (options.examples or draws) * length}
    summary |= {"vocab": vocab, "length": length, "examples": summary["documents"], "digest": name}
    summary |= {"sources": {name: {"share": 1.0, "examples": summary["documents"], "drawn": draws, "epochs": epochs}}}
    held_out = {split: world.HeldOut(drawn[split], options.held_out, length) for split in corpus.SPLITS}
    return Data(spec, drawn["train"], held_out.__getitem__, summary)


def shapes(spec: Spec, rows: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of each array of a batch."""
    if spec.kind == "points":
        return {"points": ((rows, spec.length), np.float32), "mask": ((rows,), np.bool_), "row": ((rows,), np.int32)}
    tokens = {"tokens": ((rows, spec.length), np.int32), "mask": ((rows, spec.length), np.bool_)}
    form = ((rows, *spec.context_shape), np.uint8 if len(spec.context_shape) == 3 else np.int32)
    context = {"context": form} if spec.context_vocab else {}
    return {**tokens, "row": ((rows,), np.int32), **context}


def expected_spec(config: Any) -> Spec | None:
    """The spec of data that are not there yet, where it is known all the same, else None: of text whose vocabulary and
    context the config tells, and of a TFDS image set whose code says what it will hold."""
    data = config.data
    words = {"bytes": 256, "words": data.vocab_size, "sentencepiece": data.vocab_size or tokenizers.PIECES}
    symbols = words.get(data.tokenizer, 0)
    spec = Spec(symbols + 1, data.length, symbols, "text", str)
    if data.conditional:  # known of captions of a TFDS set's pictures
        names, side = [source[0] for source in data.sources] or [data.name], data.image_size
        symbols = symbols if side and all(name.startswith("tfds:") for name in names) else 0
        spec = spec._replace(context_vocab=256, context_shape=(side, side, 3))
    return spec if symbols else expected_images(data)


def expected_images(data: Any) -> Spec | None:
    from gentrain.data import prepared  # brings TFDS with it

    found = prepared.announced(data.name.removeprefix("tfds:")) if data.name.startswith("tfds:") else None
    if found is None:
        return None
    shape = (data.image_size, data.image_size, found.shape[2]) if data.image_size else found.shape
    vocab, classes = data.levels or 256, found.classes if data.conditional else 0
    return Spec(vocab, math.prod(shape), None, "image", str, context_vocab=classes, shape=shape)


def check(data: Any) -> None:
    """Raises ConfigError for what no data could satisfy and gentrain.config does not see."""
    if data.levels and not 2 <= data.levels <= 256:
        raise ConfigError(f"config.data.levels is {data.levels}; it is 0 or 2 to 256")
    seen = set()
    for source in data.sources:
        if len(source) != 3 or source[1] <= 0 or source[2] < 0:
            raise ConfigError(f"config.data.sources has {source!r}; each is (name, weight > 0, repeats >= 0)")
        if source[0] in seen or source[0] == "mixture":
            raise ConfigError(
                f"config.data.sources names {source[0]!r}, which it may not or did before; name each source once"
            )
        seen.add(source[0])


def load(names: list[str], data: Any) -> list[Corpus]:
    """The sources' raw corpora, of one kind. Raises DataError where they are not, or have no train examples."""
    raw = [sources.load(name, data) for name in names]
    for name, source in zip(names, raw, strict=True):
        if not len(source.splits["train"].tokens):
            raise DataError(f"{name} has no train examples: {source.meta['documents']} documents")
        if source.meta["kind"] != raw[0].meta["kind"]:
            raise DataError(
                f"a mixture is of text or of images: {names[0]} is {raw[0].meta['kind']}, "
                f"{name} is {source.meta['kind']}"
            )
    return raw


def contexts(names: list[str], raw: list[Corpus]) -> dict[str, Any]:
    """What the spec says of the sources' contexts.

    Raises ConfigError where a source has none, and DataError where those of a mixture differ.
    """
    first = raw[0].meta
    for name, source in zip(names, raw, strict=True):
        if not source.meta.get("classes") and not source.meta.get("context_shape"):
            raise ConfigError(
                f"config.data.conditional needs class labels, or texts that come with what they are about, and {name} "
                "has none: set it to False"
            )
        for key in ("classes", "context_shape", "alphabet"):
            mine, other = first.get(key), source.meta.get(key)
            if mine != other:
                raise DataError(f"a mixture's contexts must agree: {key} is {mine} in {names[0]}, {other} in {name}")
    classes, alphabet = first.get("classes"), first.get("alphabet")
    if classes:
        return {"context_vocab": len(classes), "decode_context": lambda context: classes[int(context[0])]}
    shape = {"context_shape": tuple(first["context_shape"])}
    if alphabet:
        spell = lambda context: "".join(alphabet[symbol - 1] for symbol in np.asarray(context).tolist() if symbol)
        return {**shape, "context_vocab": len(alphabet) + 1, "decode_context": spell}
    return {**shape, "context_vocab": 256, "decode_context": lambda context: np.asarray(context, np.uint8)}


def without_contexts(found: Corpus) -> Corpus:
    splits = {split: a._replace(labels=a.labels[:0], contexts=None) for split, a in found.splits.items()}
    return found._replace(splits=splits)


def texts(names: list[str], raw: list[Corpus], data: Any, workdir: Path | None) -> tuple[list[Corpus], Spec]:
    """Text in tokens of one vocabulary, and its spec; one with a context is a whole row."""
    if data.conditional and data.layout == "pack":
        raise ConfigError("config.data.layout='pack' puts texts with different contexts into one row: set it to 'pad'")
    tokenizer, key = tokenizers.obtain(raw, data.tokenizer, data.vocab_size, workdir)
    corpora = [tokenizers.encode(source, tokenizer, key) for source in raw]
    if data.conditional:
        sizes = [max(np.diff(a.offsets).max(initial=0) for a in found.splits.values()) for found in corpora]
        if max(sizes) > data.length:
            raise DataError(
                f"{names[int(np.argmax(sizes))]} has a text of {max(sizes)} tokens, its end counted, which with "
                f"config.data.conditional is not cut: set config.data.length = {max(sizes)} (it is {data.length})"
            )
    return corpora, Spec(tokenizer.symbols + 1, data.length, tokenizer.symbols, "text", tokenizer.decode)


def images(names: list[str], raw: list[Corpus], data: Any, workdir: Path | None) -> tuple[list[Corpus], Spec]:
    """Images quantised to config.data.levels, and their spec: row-major values, a pixel's channels side by side."""
    del workdir
    first = raw[0].meta
    for name, source in zip(names, raw, strict=True):
        for key in ("shape",) if data.levels else ("shape", "top"):
            if source.meta[key] != first[key]:
                raise DataError(
                    f"a mixture's images must agree: {key} is {first[key]} in {names[0]}, {source.meta[key]} in {name}"
                )
    vocab, shape = data.levels or first["top"] + 1, tuple(first["shape"])
    corpora = [quantise(source, data.levels) if data.levels else source for source in raw]

    def decode(tokens: np.ndarray) -> np.ndarray:
        values = np.minimum(np.asarray(tokens), vocab - 1) * (255 / (vocab - 1))
        return np.round(values).astype(np.uint8).reshape(shape)

    return corpora, Spec(vocab, math.prod(shape), None, "image", decode, shape=shape)


def quantise(raw: Corpus, levels: int) -> Corpus:
    """min(levels - 1, floor(value / top * levels)) of every value."""
    values = np.arange(raw.meta["top"] + 1)
    table = np.minimum(levels - 1, values * levels // raw.meta["top"]).astype(np.uint8)

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for name, arrays in raw.splits.items():
                for tokens, lengths in corpus.blocks(arrays):
                    writer.extend(name, table[tokens], lengths, len(tokens))
                writer.labels[name].extend(arrays.labels.tolist())
            writer.finish(**{key: raw.meta[key] for key in ("kind", "shape", "top", "classes")})

    return corpus.read(corpus.cached(["quantised", raw.digest, levels], make))


def prefetch(make: Callable[[int], Any], start: int, stop: int, depth: int) -> Generator[tuple[int, Any]]:
    """Yields (step, make(step)) for start <= step < stop in order, `depth` of them made ahead in a thread (0: no
    thread).

    What make raises is raised here, at its step; closing the generator ends the thread after the make it is in.
    """
    if not depth:
        yield from ((step, make(step)) for step in range(start, stop))
        return
    ready: queue.SimpleQueue = queue.SimpleQueue()
    room, closed = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        for step in range(start, stop):
            room.acquire()
            if closed.is_set():
                return
            try:
                ready.put((make(step), None))
            except BaseException as error:
                ready.put((None, error))
                return

    threading.Thread(target=work, name="prefetch", daemon=True).start()
    try:
        for step in range(start, stop):
            made, error = ready.get()
            if error is not None:
                raise error
            room.release()
            yield step, made
    finally:
        closed.set()
        room.release()
