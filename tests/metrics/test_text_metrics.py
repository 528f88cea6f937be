"""Metrics of sentences against NLTK and against their definitions, one n-gram at a time."""

import math
import time
from collections import Counter

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from gentrain.metrics import text

ORDER = 5


def sentences(random, count, symbols=6, longest=9):
    """Some are empty, of one word, or equal to others."""
    return [[f"w{word}" for word in random.integers(0, symbols, random.integers(0, longest))] for _ in range(count)]


def count(*corpora):
    return text.count_grams(text.number_words(*corpora), ORDER)


def nltk_bleu(references, sentence, order):
    return sentence_bleu(references, sentence, (1 / order,) * order, SmoothingFunction().method1)


def grams_of(corpus, n):
    return Counter(tuple(line[i : i + n]) for line in corpus for i in range(len(line) - n + 1))


@pytest.mark.parametrize("seed", range(6))
def test_bleu_is_that_of_nltk(seed):
    random = np.random.default_rng(seed)
    samples = sentences(random, 12, symbols=3 + seed)
    references = [*sentences(random, 9, symbols=3 + seed), ["w0"] * 15]
    own, others = count(samples, references)
    for order, scores in enumerate(text.bleu(own, others), 1):
        for sentence, score in zip(samples, scores, strict=True):
            assert score == pytest.approx(nltk_bleu(references, sentence, order), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_self_bleu_is_that_of_nltk_without_the_sentence_itself(seed):
    random = np.random.default_rng(seed)
    samples = sentences(random, 14, symbols=2 + seed)
    samples += [samples[3], [*samples[4], *samples[4], *samples[4]]]  # a repeated one, and one of a length of its own
    (own,) = count(samples)
    for order, scores in enumerate(text.self_bleu(own), 1):
        for number, score in enumerate(scores):
            others = samples[:number] + samples[number + 1 :]
            assert score == pytest.approx(nltk_bleu(others, samples[number], order), abs=1e-9)


def test_self_bleu_needs_another_sentence():
    (own,) = count([["one", "sentence"]])
    with pytest.raises(ValueError, match="there are 1 in all"):
        text.self_bleu(own)


def test_sentences_that_are_left_out_might_as_well_not_have_been_there():
    random = np.random.default_rng(0)
    samples, references = sentences(random, 30), sentences(random, 20)
    chosen = random.random(30) < 0.6
    own, others = count(samples, references)
    kept = [text.keep(grams, chosen) for grams in own]
    alone, same = count([line for line, stays in zip(samples, chosen, strict=True) if stays], references)
    np.testing.assert_allclose(text.self_bleu(kept), text.self_bleu(alone), rtol=1e-12)
    np.testing.assert_allclose(text.bleu(kept, others), text.bleu(alone, same), rtol=1e-12)
    np.testing.assert_allclose(text.ms_jaccard(kept, others), text.ms_jaccard(alone, same), rtol=1e-12)
    assert [text.distinct(grams) for grams in kept] == [text.distinct(grams) for grams in alone]


def test_shares_of_ngrams_are_as_defined():
    random = np.random.default_rng(1)
    samples, references = sentences(random, 25), sentences(random, 40, symbols=7)
    own, others = count(samples, references)
    product = 1.0
    for n in range(1, ORDER + 1):
        a, b = grams_of(samples, n), grams_of(references, n)
        assert text.distinct(own[n - 1]) == pytest.approx(len(a) / a.total())
        halves = {gram: (b[gram] / b.total(), a[gram] / a.total()) for gram in a | b}
        js = sum(x / 2 * math.log(2 * x / (p + q)) for p, q in halves.values() for x in (p, q) if x)
        assert text.jsd(own[n - 1], others[n - 1]) == pytest.approx(js)
        rates = [(a[gram] / len(samples), b[gram] / len(references)) for gram in a | b]
        product *= sum(map(min, rates)) / sum(map(max, rates))
        assert text.ms_jaccard(own, others)[n - 1] == pytest.approx(product ** (1 / n))


def test_equal_texts_share_everything_and_texts_without_a_word_in_common_nothing():
    lines, others = [["a", "b", "a", "c"], ["c", "a"]], [["x", "y", "z", "x", "y"]]
    same, again, other = count(lines, lines, others)
    assert text.jsd(same[1], again[1]) == 0 and text.jsd(same[1], other[1]) == pytest.approx(math.log(2))
    assert text.bleu(same, again)[1].tolist() == [1, 1] and not text.bleu(same, other).any()
    assert text.ms_jaccard(same, again)[0] == 1 and not text.ms_jaccard(same, other).any()


def test_what_has_no_ngram_has_no_number():
    short, longer = count([["a"], []], [["a", "b"]])
    assert math.isnan(text.distinct(short[1])) and math.isnan(text.jsd(short[1], longer[1]))
    assert math.isnan(text.ms_jaccard(short, short)[1]) and text.ms_jaccard(short, short)[0] == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_longest_copies_are_as_defined(seed):
    random = np.random.default_rng(seed)
    samples, source = sentences(random, 30, symbols=4, longest=12), sentences(random, 15, symbols=5, longest=12)
    samples += [source[2], source[3] + source[4]]  # a whole copy; a span over two sentences counts in neither
    written = [" " + "".join(f"{word} " for word in line) for line in source]

    def stands(span):
        return any("".join(f" {word}" for word in span) + " " in line for line in written)

    for line, longest in zip(samples, text.longest_copies(*text.number_words(samples, source)), strict=True):
        spans = [j - i for i in range(len(line)) for j in range(i + 1, len(line) + 1) if stands(line[i:j])]
        assert longest == max(spans, default=0)


def test_ten_thousand_sentences_take_seconds():
    random = np.random.default_rng(0)
    law = 1 / np.arange(1, 5001)
    draw = lambda: random.choice(5000, 200_000, p=law / law.sum())
    samples, references = (text.Sentences(draw(), np.arange(10_001) * 20) for _ in range(2))
    start = time.process_time()
    own, others = text.count_grams([samples, references], ORDER)
    text.bleu(own, others)
    text.self_bleu(own)
    assert time.process_time() - start < 5
