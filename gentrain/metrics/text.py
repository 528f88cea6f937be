"""How good and how varied sentences are, by the n-grams that they have in common with others."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gentrain import divergences

UNSEEN = 0.1  # n-grams that a sentence is taken to share where it shares none: NLTK's smoothing method1


class Sentences(NamedTuple):
    """Words by number: sentence i is words[offsets[i]:offsets[i+1]]."""

    words: np.ndarray
    offsets: np.ndarray


class Grams(NamedTuple):
    """The n-grams of one order in some sentences, a cell for each n-gram that stands in a sentence, sorted by n-gram.

    gram (cells,): the number of the n-gram, of `kinds` numbers in all. sentence (cells,): where it stands. times
    (cells,): how often. lengths (sentences,): words of each.
    """

    gram: np.ndarray
    sentence: np.ndarray
    times: np.ndarray
    lengths: np.ndarray
    kinds: int


def number_words(*corpora: Sequence[Sequence[str]]) -> list[Sentences]:
    """Sentences of words, as numbers that are the same in all of the corpora."""
    numbers: dict[str, int] = {}
    numbered = []
    for corpus in corpora:
        words = [numbers.setdefault(word, len(numbers)) for sentence in corpus for word in sentence]
        offsets = np.cumsum([0, *map(len, corpus)])
        numbered.append(Sentences(np.asarray(words, np.int64), offsets))
    return numbered


def count_grams(corpora: Sequence[Sentences], order: int) -> list[list[Grams]]:
    """For each of the corpora its Grams of orders 1, 2, …, order; an n-gram has the same number in all of them."""
    words, lengths, sentence, left = join(corpora)
    corpus = np.repeat(np.arange(len(corpora)), [len(each.offsets) - 1 for each in corpora])
    first = np.searchsorted(corpus, np.arange(len(corpora)))  # sentence of each corpus
    place, gram = np.arange(len(words)), np.zeros(len(words), np.int64)
    vocab = int(words.max(initial=0)) + 1
    counted: list[list[Grams]] = [[] for _ in corpora]
    for n in range(order):
        whole = left[place] > n
        place = place[whole]
        # Ranks instead of base-vocab numbers, which would overflow.
        different, gram = np.unique(gram[whole] * vocab + words[place + n], return_inverse=True)
        cells, count = np.unique(gram * max(len(lengths), 1) + sentence[place], return_counts=True)
        gram_of, sentence_of = np.divmod(cells, max(len(lengths), 1))
        for number, grams in enumerate(counted):
            own = corpus[sentence_of] == number
            numbers = gram_of[own], sentence_of[own] - first[number], count[own]
            grams.append(Grams(*numbers, lengths[corpus == number], len(different)))
    return counted


def join(corpora: Sequence[Sentences]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All words side by side; how many each sentence has; of each word its sentence, and how many it has from there."""
    words = np.concatenate([each.words for each in corpora])
    lengths = np.concatenate([np.diff(each.offsets) for each in corpora])
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    return words, lengths, sentence, np.cumsum(lengths)[sentence] - np.arange(len(words))


def keep(grams: Grams, chosen: np.ndarray) -> Grams:
    """What is left where some of the sentences are left out; chosen (sentences,): whether each stays."""
    stays, number = chosen[grams.sentence], np.cumsum(chosen) - 1
    gram, sentence, times = grams.gram[stays], number[grams.sentence[stays]], grams.times[stays]
    return Grams(gram, sentence, times, grams.lengths[chosen], grams.kinds)


def bleu(samples: Sequence[Grams], references: Sequence[Grams]) -> np.ndarray:
    """BLEU of each sentence against all of the references: (orders, sentences), row n - 1 of n-grams up to n.

    exp(min(0, 1 - r / c)) (prod_{i<=n} p_i)^(1/n), c its words and r those of the reference of the closest length, p_i
    the share of its i-grams that stand in a reference, each as often as it does there at most; where none does, .1
    stands for their number (NLTK's sentence_bleu with smoothing method1). Papineni et al., 2002.
    """
    matched = [
        np.bincount(own.sentence, np.minimum(own.times, most(others, others.times)[own.gram]), len(own.lengths))
        for own, others in zip(samples, references, strict=True)
    ]
    lengths = samples[0].lengths
    return combine(np.stack(matched), lengths, closest_lengths(lengths, references[0].lengths))


def self_bleu(samples: Sequence[Grams]) -> np.ndarray:
    """BLEU of each sentence against all the others, as `bleu`: low where sentences differ. Zhu et al., 2018.

    An n-gram's largest count among the others is its largest of all, or the second largest for the sentence that has
    that one: so all sentences together cost no more than one. Raises ValueError for fewer than two sentences.
    """
    lengths = samples[0].lengths
    if len(lengths) < 2:
        raise ValueError(f"a sentence is compared with the others, and there are {len(lengths)} in all")
    matched = []
    for grams in samples:
        largest = grams.times == most(grams, grams.times)[grams.gram]
        below = most(grams, np.where(largest, 0, grams.times))
        alone = np.bincount(grams.gram[largest], minlength=grams.kinds) == 1
        shared = np.where(largest & alone[grams.gram], below[grams.gram], grams.times)
        matched.append(np.bincount(grams.sentence, shared, len(lengths)))
    return combine(np.stack(matched), lengths, closest_lengths(lengths, lengths, among_them=True))


def closest_lengths(lengths: np.ndarray, others: np.ndarray, among_them: bool = False) -> np.ndarray:
    """Of each length the closest of the others, and of two the shorter; among_them: the others have it too, once."""
    different, place = np.unique(lengths, return_inverse=True)
    there, times = np.unique(others, return_counts=True)
    gaps = np.abs(different[:, None] - there).astype(np.float64)
    if among_them:
        gaps[(gaps == 0) & (times == 1)] = np.inf
    return there[gaps.argmin(1)][place]


def combine(matched: np.ndarray, lengths: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """BLEU of orders 1, 2, … from the n-grams that matched (orders, sentences) and the lengths of the two."""
    order = np.arange(1, len(matched) + 1)[:, None]
    precision = np.where(matched > 0, matched, UNSEEN) / np.maximum(lengths - order + 1, 1)
    penalty = np.exp(np.minimum(0, 1 - closest / np.maximum(lengths, 1)))
    return np.where(matched[0] > 0, penalty * np.exp(np.cumsum(np.log(precision), axis=0) / order), 0.0)


def most(grams: Grams, values: np.ndarray) -> np.ndarray:
    """The largest of the cells' values by n-gram, (kinds,); 0 where it has none."""
    starts = np.flatnonzero(np.diff(grams.gram, prepend=-1))
    largest = np.zeros(grams.kinds, values.dtype)
    if len(starts):
        largest[grams.gram[starts]] = np.maximum.reduceat(values, starts)
    return largest


def totals(grams: Grams) -> np.ndarray:
    """How often each n-gram stands in all sentences together, (kinds,)."""
    return np.bincount(grams.gram, grams.times, grams.kinds)


def distinct(grams: Grams) -> float:
    """How many different n-grams there are, by the number of all; nan where there are none. Li et al., 2016."""
    counts = totals(grams)
    return float((counts > 0).sum() / counts.sum()) if len(grams.gram) else float("nan")


def jsd(samples: Grams, references: Grams) -> float:
    """JS_{1/2} of the two laws of n-grams as they were counted, nats, from 0 to log 2; nan where one has no n-gram.

    Its mean over samples lies above that of the laws: by (kinds - 1) (1/n + 1/m) / 8 for n and m n-grams, to first
    order.
    """
    p, q = totals(references), totals(samples)
    return float(divergences.js(p / p.sum(), q / q.sum(), 0.5)) if p.any() and q.any() else float("nan")


def ms_jaccard(samples: Sequence[Grams], references: Sequence[Grams]) -> np.ndarray:
    """MS-Jaccard of orders 1, 2, …: the geometric mean over i <= n of sum_g min(a_g, b_g) / sum_g max(a_g, b_g), a_g
    and b_g being how often the i-gram g stands in a sentence of the two, in the mean. Alihosseini et al., 2019."""
    shares = []
    for own, others in zip(samples, references, strict=True):
        a, b = totals(own) / max(len(own.lengths), 1), totals(others) / max(len(others.lengths), 1)
        shares.append(np.minimum(a, b).sum() / np.maximum(a, b).sum() if a.any() or b.any() else float("nan"))
    with np.errstate(divide="ignore"):
        return np.exp(np.cumsum(np.log(shares)) / np.arange(1, len(shares) + 1))


def longest_copies(samples: Sentences, source: Sentences) -> np.ndarray:
    """Words of the longest span of each sample that stands in one sentence of the source, (samples,).

    Spans of 1, 2, … words, of which only those are lengthened that stand in both.
    """
    words, lengths, sentence, left = join([samples, source])
    own = len(samples.offsets) - 1  # sentences of the samples, which come first
    longest, vocab = np.zeros(own, np.int64), int(words.max(initial=0)) + 1
    place, span = np.arange(len(words)), np.zeros(len(words), np.int64)
    for n in range(int(lengths.max(initial=0))):
        whole = left[place] > n
        place = place[whole]
        different, span = np.unique(span[whole] * vocab + words[place + n], return_inverse=True)
        sampled = sentence[place] < own
        in_both = np.bincount(span[sampled], minlength=len(different)) > 0
        in_both &= np.bincount(span[~sampled], minlength=len(different)) > 0
        place, span = place[in_both[span]], span[in_both[span]]
        if not len(place):
            break
        longest[sentence[place[sentence[place] < own]]] = n + 1
    return longest
