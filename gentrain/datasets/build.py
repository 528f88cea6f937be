"""The data of a config: train as batch(step), splits in order, their spec and a summary."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from ml_collections import ConfigDict

from gentrain import files, plugins
from gentrain.datasets import store, taught, tokenizers
from gentrain.datasets.reading import read_source
from gentrain.datasets.rows import Part, Pass, Shuffled, draws_by_source, first_rows, lay_out, proportions
from gentrain.datasets.spec import ImageSpec, Spec, TextSpec, from_json, to_json
from gentrain.datasets.store import Arrays, Corpus
from gentrain.errors import ConfigError, DataError

Batch = dict[str, np.ndarray]
TOKENIZER = "tokenizer"  # its name among the digests of what was read
TAUGHT = "taught"  # and that of what a teacher said of it
SPEC = "spec.json"  # in a workdir: what is to be known of the data by what reads no examples


class Source(Protocol):
    """Random access to batches; there is no iterator state, so a step number is the whole data position.

    batch(step) is this process's rows of global batch number `step`, a dict of arrays:
    tokens (rows, length) int32, targets, the end token included, padded with 0;
    mask (rows, length) bool, False on padding;
    row (rows,) int32, the row's number in the global batch, from which per-example keys are made;
    source (rows,) int32, the number of the source that the row is from, only where spec.sources > 1;
    points (rows, length) float32 in place of tokens, with mask (rows,), where the data are points;
    context (rows, *spec.context_shape), only where spec.context_vocab > 0: int32, or uint8 where it is a picture.
    """

    def batch(self, step: int) -> Batch: ...


class Split(Protocol):
    """One pass over a split in file order: batch(0..batches-1), the last one filled up with rows that are masked out.

    tokens: targets in the split; characters: what a reader counts instead (characters of the text plus one for each
    document's end; values of an image), so that nats/character = nats/token * tokens / characters.
    documents: (tokens, offsets): all tokens in one array, document i, its end token included, being
    tokens[offsets[i]:offsets[i+1]]. pieces: the same tokens, document by document as the rows hold them: one that is
    longer than a row is cut. take: the rows of these numbers, whichever process reads them.
    """

    batches: int
    tokens: int
    characters: int

    @property
    def documents(self) -> tuple[np.ndarray, np.ndarray]: ...

    @property
    def pieces(self) -> tuple[np.ndarray, np.ndarray]: ...

    def batch(self, step: int) -> Batch: ...

    def take(self, numbers: np.ndarray) -> Batch: ...


class Data(NamedTuple):
    """All that a run reads.

    split: 'train', 'valid' or 'test' -> one pass over it; 'valid:SOURCE' -> over what one source has of it.
    summary: how many examples and tokens train has, how many of its documents are cut, how many examples are damaged
    and left out, how many held-out documents also stand in train, each source's share and epochs over the run, and
    digests of what was read: of each source by its name, of the tokenizer where there is one, and of what a teacher
    said of the rows; asked: where that one is from, by player.
    """

    spec: Spec
    train: Source
    split: Callable[[str], Split]
    summary: dict[str, Any]


class WeightedSource(NamedTuple):
    """A source of a mixture. weight: its share, by the sum of all weights; repeats: the most passes over it, 0: any;
    examples: how many of its train examples are used, the first ones, 0: all."""

    name: str
    weight: float
    repeats: int
    examples: int = 0


def build(config: ConfigDict, workdir: Path | None, rows: np.ndarray | None = None) -> Data:
    """The data of a config: uses config.seed, config.steps and config.data.

    workdir: where the tokenizer is kept and looked for; None: nothing is written but the cache. rows: the rows of the
    global batch that this process reads, None for all. Raises ConfigError and DataError.
    """
    rows = np.arange(config.data.batch_size) if rows is None else np.asarray(rows)
    store.clean_up()
    source = plugins.load("datasets.sources", config.data.name.partition(":")[0])
    if hasattr(source, "build"):
        data = source.build(config, workdir, rows)
    else:
        data = from_sources(config, [WeightedSource(config.data.name, 1.0, 0)], workdir, rows)
    if config.data.taught:
        data = with_taught(data, Path(config.data.taught), rows_of_train(config, data))
    if workdir is not None and not is_noted(workdir, data.spec):
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_json(workdir / SPEC, to_json(data.spec))
    return data


def rows_of_train(config: ConfigDict, data: Data) -> dict[str, Any]:
    """What a teacher's folder says of the rows that it was asked about: see taught.describe."""
    return taught.describe(data.spec, data.train, config.data.layout, data.summary["digests"])


def with_taught(data: Data, folder: Path, rows: Mapping[str, Any]) -> Data:
    """The data, whose train batches also have what a teacher said of their rows; its digest is among those of the data.

    Raises what taught.open_folder does.
    """
    assert isinstance(data.train, Shuffled)
    note = taught.open_folder(folder, rows)
    summary = {**data.summary, "digests": data.summary["digests"] | {TAUGHT: store.digest_of(note)}}
    summary["asked"] = note["asked"]
    spec = dataclasses.replace(data.spec, beside=taught.beside(note))
    return data._replace(spec=spec, train=taught.Taught(data.train, folder, note), summary=summary)


def is_noted(workdir: Path, spec: Spec) -> bool:
    """Whether the workdir has this spec already."""
    return files.read_json(workdir / SPEC) == json.loads(json.dumps(to_json(spec)))


def stored(workdir: Path) -> Data | None:
    """What a workdir itself knows of its data, enough for what reads no examples; None where it knows nothing.

    Of the digests there is the tokenizer's alone. Raises DataError for damage.
    """
    if not (workdir / SPEC).exists():
        return None
    tokenizer = tokenizers.find(workdir)
    try:
        spec = from_json(files.require_json(workdir / SPEC), tokenizer)
    except (KeyError, TypeError) as error:
        raise DataError(f"{workdir / SPEC} is damaged: {error}; delete it, and the data are read anew") from error
    digests = {} if tokenizer is None else {TOKENIZER: tokenizers.digest(tokenizer)}
    unread = Unread(workdir)
    return Data(spec, unread, unread.split, {"digests": digests})


class Unread:
    """Data of a run that are not read: whoever asks for an example is told so."""

    def __init__(self, workdir: Path):
        self.workdir = workdir

    def batch(self, step: int) -> Batch:
        raise DataError(f"the data of {self.workdir} are not read for this")

    def split(self, name: str) -> Split:
        raise DataError(f"the data of {self.workdir} are not read for this")


def from_sources(config: ConfigDict, sources: list[WeightedSource], workdir: Path | None, rows: np.ndarray) -> Data:
    """The data of sources that are read into corpora, one or a mixture of them by weight."""
    data = config.data
    names = [source.name for source in sources]
    raw = read_sources(names, data)
    contexts = context_fields(names, raw) if data.conditional else {}
    if is_text(raw[0]):
        corpora, spec, digests = encode_texts(names, raw, data, workdir)
    else:
        corpora, spec = quantise_images(names, raw, data)
        digests = {}
    spec = dataclasses.replace(spec, **contexts, sources=len(sources))
    if not data.conditional:
        corpora = [without_contexts(corpus) for corpus in corpora]
    layout = data.layout if is_text(raw[0]) else "pad"

    def parts(split: str, source: str = "") -> list[Part]:
        chosen = [(one, corpus) for one, corpus in zip(sources, corpora, strict=True) if source in ("", one.name)]
        laid_out = [(one, lay_out(corpus.splits[split], spec.length, layout)) for one, corpus in chosen]
        return [first_examples(one, part) if split == "train" else part for one, part in laid_out]

    @functools.cache
    def split(name: str) -> Split:
        whole, _, source = name.partition(":")
        if whole not in store.SPLITS or source not in ("", *names):
            raise ConfigError(f"no split is named {name!r}; there are: {', '.join(store.SPLITS)}")
        one_pass = Pass(parts(whole, source), data.batch_size, rows, spec.length)
        if not one_pass.batches:
            raise DataError(
                f"the split {name!r} of {', '.join(names)} is empty; raise data.valid_fraction and data.test_fraction,"
                " or give more examples"
            )
        return one_pass

    train = parts("train")
    shares = proportions([source.weight for source in sources])
    summary = summarise(config, sources, train, shares)
    summary |= {
        "vocab": spec.vocab,
        "length": spec.length,
        "cut": sum(int((np.diff(part.offsets) > spec.length).sum()) for part in train),
        "repeated": sum(source.meta["repeated"] for source in raw),
        "damaged": sum(source.meta["damaged"] for source in raw),
        "held_out": sum(source.meta["documents"][split] for source in raw for split in ("valid", "test")),
        "digests": digests | {name: corpus.digest for name, corpus in zip(names, corpora, strict=True)},
    }
    return Data(spec, Shuffled(train, shares, config.seed, data.batch_size, rows, spec.length), split, summary)


def first_examples(source: WeightedSource, train: Part) -> Part:
    """What a mixture uses of a source's train examples. Raises DataError where it has fewer than are asked for."""
    if source.examples > train.rows:
        raise DataError(
            f"{source.name} has {train.rows} train examples, but data.mixture.sources asks for {source.examples}"
        )
    return first_rows(train, source.examples) if source.examples else train


def summarise(
    config: ConfigDict, sources: list[WeightedSource], train: list[Part], shares: np.ndarray
) -> dict[str, Any]:
    """What train has, and how often the run passes over each source. Raises DataError for more passes than allowed."""
    size = config.data.batch_size
    draws = draws_by_source(config.steps * size, shares)
    by_source: dict[str, Any] = {}
    for source, part, count in zip(sources, train, draws.tolist(), strict=True):
        epochs = count / part.rows
        if source.repeats and epochs > source.repeats:
            raise DataError(
                f"{source.name} has {part.rows} train examples and {config.steps} steps of {size} draw {count},"
                f" {epochs:.2f} passes, but data.mixture.sources allows {source.repeats}: lower its weight or steps"
            )
        share = count / max(1, int(draws.sum()))
        by_source[source.name] = {"share": share, "examples": part.rows, "drawn": count, "epochs": epochs}
    return {
        "examples": sum(part.rows for part in train),
        "documents": sum(len(part.offsets) - 1 for part in train),
        "tokens": sum(len(part.tokens) for part in train),
        "sources": by_source,
    }


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """What a reader of a run's numbers wants to know of its documents, where there is anything to say."""
    said = []
    if damaged := summary["damaged"]:
        said.append(f"{damaged:,} examples cannot be read and are left out, as data.max_damaged allows")
    if cut := summary["cut"]:
        share = cut / summary["documents"]
        said.append(f"{cut:,} documents ({share:.1%}) are longer than data.length={summary['length']} and are cut")
    if repeated := summary["repeated"]:
        share = repeated / summary["held_out"]
        said.append(f"{repeated:,} of {summary['held_out']:,} held-out documents ({share:.1%}) also stand in train")
    return said


def unchanged(
    data: Data, allow: Collection[str], say: Callable[[str], object]
) -> Callable[[int, Mapping[str, Any]], None]:
    """The check of a checkpoint's step and meta: was it trained on these data, with this tokenizer?

    It raises ConfigError naming what changed; where allow has 'data' it says so instead.
    """

    def check(step: int, meta: Mapping[str, Any]) -> None:
        before, now = meta.get("data", {}), data.summary["digests"]
        names = now.keys() if isinstance(data.train, Unread) else before.keys() | now.keys()
        changed = ", ".join(name for name in sorted(names) if before.get(name) != now.get(name))
        if changed and "data" not in allow:
            raise ConfigError(f"data changed since step {step}: {changed}; put it back, or go on with --allow=data")
        if changed:
            say(f"data changed since step {step}: {changed}; going on, as --allow=data says")

    return check


def expected_spec(config: ConfigDict) -> Spec | None:
    """The spec of data that are still to be fetched, where their source can tell it from the config; else None."""
    name, _, argument = config.data.name.partition(":")
    source = plugins.load("datasets.sources", name)
    return source.expected_spec(argument, config.data) if hasattr(source, "expected_spec") else None


def read_sources(names: list[str], data: ConfigDict) -> list[Corpus]:
    """The sources' raw corpora, of one kind. Raises DataError where they are not, or have no train examples."""
    raw = [read_source(name, data) for name in names]
    for name, source in zip(names, raw, strict=True):
        if not len(source.splits["train"].tokens):
            raise DataError(f"{name} has no train examples: {source.meta['documents']} documents")
        if source.meta["kind"] != raw[0].meta["kind"]:
            raise DataError(
                f"a mixture is of text or of images: {names[0]} is {raw[0].meta['kind']}, "
                f"{name} is {source.meta['kind']}"
            )
    return raw


def is_text(corpus: Corpus) -> bool:
    """Whether a raw corpus is of text, and not of images."""
    return corpus.meta["kind"] == "text"


def context_fields(names: list[str], raw: list[Corpus]) -> dict[str, Any]:
    """The fields of the spec that describe the sources' contexts.

    Raises ConfigError where a source has none, and DataError where those of a mixture differ.
    """
    first = raw[0].meta
    for name, source in zip(names, raw, strict=True):
        if not source.meta.get("classes") and not source.meta.get("context_shape"):
            raise ConfigError(
                f"data.conditional needs class labels, or texts that come with what they are about, and {name} has"
                " none: set it to False"
            )
        for key in ("classes", "context_shape", "alphabet"):
            value = source.meta.get(key)
            if value != first.get(key):
                raise DataError(
                    f"a mixture's contexts must agree: {key} is {first.get(key)} in {names[0]}, {value} in {name}"
                )
    if classes := first.get("classes"):
        return {"context_vocab": len(classes), "context_names": tuple(classes)}
    shape = {"context_shape": tuple(first["context_shape"])}
    if alphabet := first.get("alphabet"):
        return {**shape, "context_vocab": len(alphabet) + 1, "context_names": tuple(alphabet)}
    return {**shape, "context_vocab": 256}


def without_contexts(corpus: Corpus) -> Corpus:
    """The same documents, without what they are about."""

    def strip(arrays: Arrays) -> Arrays:
        return arrays._replace(labels=arrays.labels[:0], contexts=None)

    return corpus._replace(splits={split: strip(arrays) for split, arrays in corpus.splits.items()})


def encode_texts(
    names: list[str], raw: list[Corpus], data: ConfigDict, workdir: Path | None
) -> tuple[list[Corpus], Spec, dict[str, str]]:
    """Text in tokens of one vocabulary, its spec, and the tokenizer's digest; a text with a context is one whole row.

    Raises ConfigError for a layout that mixes contexts, DataError for a text with a context that is longer than a row.
    """
    if data.conditional and data.layout == "pack":
        raise ConfigError("data.layout='pack' puts texts with different contexts into one row: set it to 'pad'")
    tokenizer = tokenizers.obtain(raw, data.tokenizer, data.vocab_size, workdir)
    corpora = [tokenizers.encode(source, tokenizer) for source in raw]
    if data.conditional:
        sizes = [max(np.diff(arrays.offsets).max(initial=0) for arrays in corpus.splits.values()) for corpus in corpora]
        if max(sizes) > data.length:
            raise DataError(
                f"{names[int(np.argmax(sizes))]} has a text of {max(sizes)} tokens, its end counted, which with"
                f" data.conditional is not cut: set data.length = {max(sizes)} (it is {data.length})"
            )
    one_document = data.layout == "pad"
    spec = TextSpec(tokenizer.vocab, data.length, tokenizer.end, one_document=one_document, tokenizer=tokenizer)
    return corpora, spec, {TOKENIZER: tokenizers.digest(tokenizer)}


def quantise_images(names: list[str], raw: list[Corpus], data: ConfigDict) -> tuple[list[Corpus], Spec]:
    """Images quantised to data.levels, if that is set, and their spec.

    Raises DataError where those of a mixture differ in shape or values.
    """
    first = raw[0].meta
    for name, source in zip(names, raw, strict=True):
        for key in ("shape",) if data.levels else ("shape", "top"):
            value = source.meta[key]
            if value != first[key]:
                raise DataError(
                    f"a mixture's images must agree: {key} is {first[key]} in {names[0]}, {value} in {name}"
                )
    vocab, shape = data.levels or first["top"] + 1, tuple(first["shape"])
    corpora = [quantise(source, data.levels) for source in raw] if data.levels else raw
    return corpora, ImageSpec(vocab, math.prod(shape), shape=shape)


def quantise(raw: Corpus, levels: int) -> Corpus:
    """min(levels - 1, floor(value / top * levels)) of every value."""
    values = np.arange(raw.meta["top"] + 1)
    table = np.minimum(levels - 1, values * levels // raw.meta["top"]).astype(np.uint8)

    def make(folder: Path) -> None:
        with store.Writer(folder) as writer:
            for split, arrays in raw.splits.items():
                for tokens, lengths in store.blocks(arrays):
                    writer.extend(split, table[tokens], lengths, len(tokens))
                writer.labels[split].extend(arrays.labels.tolist())
            writer.finish(**{key: raw.meta[key] for key in ("kind", "shape", "top", "classes")})

    return store.read(store.cached(["quantised", raw.digest, levels], make))
