"""Are generated texts good, varied, and not copied? By their n-grams, and to the ear of a judge that read the data."""

import dataclasses
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import TextSpec
from gentrain.datasets.tokenizers import split_words
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator, decode_rows, make_draw, name_values, with_company
from gentrain.evaluators.judge import Judge, Scores
from gentrain.evaluators.sentences import Sentences
from gentrain.evaluators.texts import FEWEST, Rows, choose_rows, draw_rows, shuffled
from gentrain.metrics import intervals, manifolds, quantised, text
from gentrain.metrics.intervals import Interval
from gentrain.models.base import Params, SequenceModel
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

ORDERS, SHORT_ORDERS = (2, 3, 4, 5), (1, 2, 3, 4)
NUMBERS = {
    **{f"bleu_{n}": Metric("0 to 1", None, f"BLEU of up to {n}-grams against held-out text") for n in ORDERS},
    **{f"self_bleu_{n}": Metric("0 to 1", None, f"BLEU-{n} of samples against the others") for n in ORDERS},
    **{f"ms_jaccard_{n}": Metric("0 to 1", "higher", f"MS-Jaccard of up to {n}-grams, held-out text") for n in ORDERS},
    **{f"distinct_{n}": Metric("share", None, f"different ones among all {n}-grams") for n in SHORT_ORDERS},
    **{f"jsd_{n}": Metric("nats", "lower", f"JS of the laws of {n}-grams, held-out text") for n in SHORT_ORDERS},
    "copied_span": Metric("words or characters", None, "the longest span of a sample that stands in train"),
    "copied_whole": Metric("share", None, "samples of which all stands in one document of train"),
    "forward_perplexity": Metric("tokens", None, "of samples, to a judge that read train"),
    "reverse_perplexity": Metric("tokens", "lower", "of held-out text, to a judge that read samples alone"),
    "precision": Metric("share", "higher", "samples among the held-out texts (k = 3), by their embeddings"),
    "recall": Metric("share", "higher", "held-out texts among the samples (k = 3), likewise"),
    "frechet": Metric("squared distance", "lower", "of Gaussians fitted to the embeddings"),
    "mauve": Metric("0 to 1", "higher", "area under the divergence curve of clusters, the mean of 5 clusterings"),
    "frontier_integral": Metric("nats", "lower", "the mean JS over all priors of clusters, of 5 clusterings"),
    "nearest_train": Metric("distance", None, "of the embedding to that of the nearest text of train"),
}


METRICS = with_company("quality", NUMBERS, "of real text")
MOST_TRAIN = 1 << 21  # tokens of train that are searched for copies
MOST_NEAREST = 20_000  # texts of train among which the nearest is looked for
DRAWN = 512  # texts that are drawn at once
NEAREST = 3  # neighbours: of precision and recall

Words = list[list[str]]


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """quality/…, the numbers of NUMBERS, from evaluate.examples samples and as many held-out texts (of both as many as
    there are, if fewer); with each its 95 % interval, …_low and …_high, and its …_floor.

    The interval is about the mean over samples so many: by a jackknife over the samples, or over the held-out texts for
    reverse perplexity, of which how a judge happens to learn is no part, or over both for precision, recall and the
    Fréchet distance. The floor is what text of train, so many, gets in place of samples, and with it the bias that
    numbers of few samples have; held-out text where train would be compared with itself. A perfect generator has the
    floor: what is better than it alone is no merit, as few n-grams are for BLEU and noise is for self-BLEU. Compare at
    one number of samples only.

    Texts are rows, as a model reads them, in words and punctuation marks, or characters. A judge is an LSTM of the
    run's own tokens (see evaluators.judge): perplexities of two tokenizers are not comparable. The embedding of a text
    is the mean of the judge's states, or of those of evaluate.text_quality.encoder (see evaluators.sentences), over its
    tokens: topic and collapse show in it, and the order of words hardly does. Numbers of two encoders are not
    comparable.

    Where texts have contexts, samples are drawn to those of held-out rows, one each, and texts are compared without
    them. The rows are others than those that samples are compared with, since what is said of one context is alike;
    so there are at most half as many as the split has. Raises ConfigError for data that are not text, for few texts,
    and for words where texts have hardly two.
    """
    spec, model = data.spec, objective.model
    if not isinstance(spec, TextSpec):
        raise ConfigError(f"evaluator 'text_quality' is for text, and the data are {spec.kind}")
    assert isinstance(model, SequenceModel)
    draw, size = make_draw(model, mesh, spec.length, end=spec.end), sharding.round_up(mesh, DRAWN)
    reference = Reference(config, data, spec)
    count = reference.count

    def generate(params, key) -> Rows:
        drawn = lambda rows: draw(params, key, rows, reference.contexts_of(np.asarray(rows)))
        return draw_rows(drawn, count, size)

    def evaluate(params, key):
        return name_values("quality", reference.measure(generate(params["generator"], key)), reference.floors)

    return evaluate


class Reference:
    """What samples are compared with, which is the same at every step and worked out when it is first needed."""

    def __init__(self, config: ConfigDict, data: Data, spec: TextSpec):
        options, split = config.evaluate.text_quality, config.evaluate.split
        self.spec, self.unit, self.train = spec, options.unit, data.split("train")
        numbers = shuffled(data.split(split))
        most = len(numbers) // 2 if spec.context_vocab else len(numbers)
        self.count = min(config.evaluate.examples, most)
        if self.count < FEWEST:
            found = f"evaluate.examples = {config.evaluate.examples}, and {split} has {len(numbers)} texts"
            found += ", half of which give the contexts of samples" if spec.context_vocab else ""
            raise ConfigError(f"evaluator 'text_quality' needs at least {FEWEST} texts: {found}")
        self.held_out = choose_rows(data.split(split), self.count, spec.length)
        others = numbers[self.count : 2 * self.count]
        self.contexts = data.split(split).take(others)["context"] if spec.context_vocab else None
        self.held_out_words = self.words(self.held_out)
        if self.unit == "words" and sum(map(len, self.held_out_words)) < 2 * self.count:
            raise ConfigError("texts of hardly two words: set evaluate.text_quality.unit = 'characters'")
        self.known = choose_rows(self.train, max(MOST_NEAREST, self.count), spec.length)
        unconditional = dataclasses.replace(spec, context_vocab=0, context_shape=(1,), context_names=())
        steps, encoder = options.judge_steps, options.encoder
        self.judged = Judged(Judge(unconditional, steps), self.known, self.held_out) if steps else None
        self.sentences = Sentences(encoder) if encoder else None

    @cached_property
    def embedded(self) -> "Embedded":
        """Held-out texts and texts of train as points: by the encoder, where there is one, or else by the judge."""
        if self.sentences:
            return Embedded(self.sentences(self.texts(self.held_out)), self.sentences.obtain(self.texts(self.known)))
        assert self.judged
        return Embedded(self.judged.real.embeddings, self.judged.score(self.known).embeddings)

    def contexts_of(self, rows: np.ndarray) -> np.ndarray | None:
        """What samples of these numbers are drawn to; None where texts have no contexts."""
        return None if self.contexts is None else self.contexts[rows % self.count]

    def words(self, rows: Rows) -> Words:
        """What n-grams are of, text by text."""
        return [self.split(text) for text in self.texts(rows)]

    def texts(self, rows: Rows) -> list[str]:
        return decode_rows(self.spec, *rows)

    def split(self, text: str) -> list[str]:
        return split_words(text) if self.unit == "words" else list(text)

    @cached_property
    def train_words(self) -> Words:
        """Whole documents of train, as many as are searched for copies."""
        tokens, offsets = self.train.documents
        ends = offsets[1 : max(2, np.searchsorted(offsets, MOST_TRAIN, "right"))]
        documents = np.split(np.asarray(tokens[: ends[-1]]), ends[:-1])
        return [self.split(self.spec.decode(document[document != self.spec.end])) for document in documents]

    @cached_property
    def floors(self) -> dict[str, float]:
        """Of real text, by the names of NUMBERS."""
        found = self.measure(choose_rows(self.train, self.count, self.spec.length))
        found |= copies(self.held_out_words, self.train_words)
        found |= self.judged.floors if self.judged else {}
        found |= self.embedded.floors if self.judged or self.sentences else {}
        return {name: float(interval.value) for name, interval in found.items()}

    def measure(self, samples: Rows) -> dict[str, Interval]:
        """The numbers of samples, by the names of NUMBERS."""
        words = self.words(samples)
        found = shares(words, self.held_out_words) | copies(words, self.train_words)
        points = self.sentences(self.texts(samples)) if self.sentences else None
        if self.judged:
            scores = self.judged.score(samples)
            found |= self.judged.measure(samples, scores)
            points = scores.embeddings if points is None else points
        return found if points is None else found | self.embedded.measure(points)


class Judged:
    """How well a judge that read train, at the first call, knows samples, and one that read samples held-out text."""

    def __init__(self, judge: Judge, train: Rows, held_out: Rows):
        self.judge, self.train, self.held_out = judge, train, held_out

    @cached_property
    def reader(self) -> Params:
        return self.judge.obtain(self.train)

    @cached_property
    def real(self) -> Scores:
        return self.score(self.held_out)

    def score(self, rows: Rows) -> Scores:
        """What the reader makes of texts."""
        return self.judge.score(self.reader, rows)

    @property
    def floors(self) -> dict[str, Interval]:
        """Where text of train would be compared with itself."""
        return {"forward_perplexity": perplexity(self.real)}

    def measure(self, samples: Rows, scores: Scores) -> dict[str, Interval]:
        """scores: what the reader makes of the samples."""
        return {
            "forward_perplexity": perplexity(scores),
            "reverse_perplexity": perplexity(self.judge.score(self.judge.fit(samples), self.held_out)),
        }


class Embedded(NamedTuple):
    """Held-out texts (n, d) and texts of train (m, d) as points, among which samples lie."""

    real: np.ndarray
    known: np.ndarray

    @property
    def floors(self) -> dict[str, Interval]:
        """Where text of train would be compared with itself."""
        return {"nearest_train": self.distance(self.real)}

    def measure(self, points: np.ndarray) -> dict[str, Interval]:
        return {**likeness(self.real, points), "nearest_train": self.distance(points)}

    def distance(self, points: np.ndarray) -> Interval:
        """The mean distance to the nearest text of train."""
        return intervals.student(manifolds.nearest(points, self.known))


def shares(samples: Words, held_out: Words) -> dict[str, Interval]:
    """What is counted of n-grams."""
    own, references = text.count_grams(text.number_words(samples, held_out), max(ORDERS))

    def statistic(chosen: np.ndarray) -> np.ndarray:
        kept = [text.keep(grams, chosen) for grams in own]
        by_order = (
            text.bleu(kept, references).mean(1),
            text.self_bleu(kept).mean(1),
            text.ms_jaccard(kept, references),
        )
        short = [kept[n - 1] for n in SHORT_ORDERS]
        divergences = [text.jsd(grams, references[n - 1]) for n, grams in zip(SHORT_ORDERS, short, strict=True)]
        numbers = [values[n - 1] for values in by_order for n in ORDERS]
        return np.asarray([*numbers, *map(text.distinct, short), *divergences])

    names = [f"{name}_{n}" for name in ("bleu", "self_bleu", "ms_jaccard") for n in ORDERS]
    names += [f"{name}_{n}" for name in ("distinct", "jsd") for n in SHORT_ORDERS]
    ends = zip(*intervals.jackknife(statistic, len(samples)), strict=True)
    return {name: Interval(*interval) for name, interval in zip(names, ends, strict=True)}


def copies(samples: Words, train: Words) -> dict[str, Interval]:
    """How much of texts stands in train."""
    longest = text.longest_copies(*text.number_words(samples, train))
    lengths = np.asarray([len(sample) for sample in samples])
    return {
        "copied_span": intervals.student(longest),
        "copied_whole": intervals.student((longest == lengths) & (lengths > 0)),
    }


def perplexity(scores: Scores) -> Interval:
    """exp of the mean of -log Q over tokens."""

    def statistic(chosen: np.ndarray) -> np.ndarray:
        return np.exp(scores.nats[chosen].sum() / scores.tokens[chosen].sum())

    return intervals.jackknife(statistic, len(scores.nats))


def likeness(real: np.ndarray, own: np.ndarray) -> dict[str, Interval]:
    """How alike two samples of embeddings are."""
    likeness = manifolds.compare(real, own, NEAREST)
    return {
        "precision": likeness.precision,
        "recall": likeness.recall,
        "frechet": intervals.jackknife_pair(
            lambda held_out, chosen: manifolds.frechet(real[held_out], own[chosen]), len(real), len(own)
        ),
        **quantised.frontier(real, own)._asdict(),
    }


def verdict(values: dict[str, float]) -> str:
    """Quality and variety beside those of real text, in words; empty where they were not measured."""
    names = [f"quality/{name}_4{end}" for end in ("", "_floor") for name in ("bleu", "self_bleu")]
    if not all(name in values for name in names):
        return ""
    return "BLEU-4 {:.3f} and self-BLEU-4 {:.3f}, of real text {:.3f} and {:.3f}".format(*map(values.get, names))
