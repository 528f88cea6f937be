"""What a model must beat: n-grams against a dictionary of counts, and independent pixels."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from gentrain.datasets.build import build
from gentrain.evaluators import baselines, ngrams


def documents(seed, count, vocab, longest=12):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, longest, count)
    return draw.integers(0, vocab, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)])


def by_dictionary(train, vocab, order):
    """The same n-gram, one probability at a time: (context, token) -> p."""
    counts = [defaultdict(Counter) for _ in range(order)]
    for a, b in zip(train[1], train[1][1:], strict=False):
        padded = [-1] * order + train[0][a:b].tolist()
        for at in range(order, len(padded)):
            for n in range(order):
                counts[n][tuple(padded[at - n : at])][padded[at]] += 1

    def p(context, token, n):
        if n < 0:
            return 1 / vocab
        followers = counts[n][tuple(context[len(context) - n :])]
        total, kinds = followers.total(), len(followers)
        lower = p(context, token, n - 1)
        return (followers[token] + kinds * lower) / (total + kinds) if total else lower

    return lambda context, token: p(context, token, order - 1)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("vocab", [3, 40])
def test_witten_bell_is_the_dictionary_one(order, vocab):
    train, valid = documents(0, 60, vocab - 1), documents(1, 30, vocab)  # valid has a token that train lacks
    p = by_dictionary(train, vocab, order)
    nats = []
    for a, b in zip(valid[1], valid[1][1:], strict=False):
        padded = [-1] * order + valid[0][a:b].tolist()
        nats += [-np.log(p(padded[:at], padded[at])) for at in range(order, len(padded))]
    *_, probabilities = ngrams.witten_bell(train, valid, vocab, order)
    np.testing.assert_allclose(-np.log(probabilities), nats, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 4])
def test_conditionals_sum_to_one_and_hold_the_probabilities_of_what_came(order):
    train, scored, vocab = documents(0, 60, 5), documents(1, 30, 6), 6
    conditionals = ngrams.conditionals(train, scored, vocab, order)
    np.testing.assert_allclose(conditionals.sum(-1), 1, rtol=1e-12)
    *_, p = ngrams.witten_bell(train, scored, vocab, order)
    np.testing.assert_allclose(conditionals[np.arange(len(p)), scored[0]], p, rtol=1e-12)


def test_independent_positions_are_counted_by_hand():
    train, valid = np.array([0, 1, 0, 1, 1, 1]), np.array([0, 1, 1, 0])
    first, second = np.array([2.5, 1.5]) / 4, np.array([0.5, 3.5]) / 4
    expected = -np.log([first[0] * second[1], first[1] * second[0]]).mean()
    assert baselines.independent_nll(train, valid, 2, 2) == pytest.approx(expected)


def test_digits_are_known(config, tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path))
    config.data.name, config.data.levels = "digits", 2
    evaluate = baselines.build(config, None, build(config, None), None)
    assert evaluate(None, None) == {"baseline/independent_pixels": pytest.approx(25.376, abs=0.001)}


def test_evaluator_names_orders_and_remembers(config, tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("abcabd" * 100)
    config.data.name, config.data.valid_fraction, config.data.test_fraction = f"text:{tmp_path / 'a.txt'}", 0.1, 0.1
    config.evaluate.baselines.ngram_order, config.evaluate.split = 3, "test"
    data = build(config, None)
    names = []
    evaluate = baselines.build(
        config, None, data._replace(split=lambda name: names.append(name) or data.split(name)), None
    )
    numbers = evaluate({}, None)
    assert list(numbers) == ["baseline/ngram_1", "baseline/ngram_2", "baseline/ngram_3", "baseline/best_ngram"]
    assert numbers["baseline/best_ngram"] == min(numbers.values())
    assert evaluate({}, None) == numbers
    assert names == ["train", "test"]
    config.evaluate.baselines.ngram_order = 0
    assert baselines.build(config, None, data, None)({}, None) == {}


def test_n_grams_are_learned_and_scored_on_documents_that_are_cut_alike(config, tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.txt").write_text("abcabdabcab")
    (tmp_path / "valid.txt").write_text("abcabcab")
    config.data.name, config.data.length, config.data.test_fraction = f"text:{tmp_path}", 3, 0.0
    config.evaluate.baselines.ngram_order = 2
    numbers = baselines.build(config, None, build(config, None), None)(None, None)
    for split in ("train", "valid"):  # the same as of documents that are as short as the rows
        lines = (tmp_path / f"{split}.txt").read_text()
        (tmp_path / f"{split}.txt").write_text("\n".join(lines[at : at + 3] for at in range(0, len(lines), 3)))
    config.data.text.unit, config.data.length = "line", 100
    data = build(config, None)
    train, valid = (data.split(split).documents for split in ("train", "valid"))
    whole = [(tokens[:], offsets) for tokens, offsets in (train, valid)]
    # Without the ends that each line has now, but a document of before had only once.
    kept = [without_ends(tokens, offsets, data.spec.end) for tokens, offsets in whole]
    *_, probabilities = ngrams.witten_bell(*kept, data.spec.vocab, 2)
    assert numbers["baseline/ngram_2"] == pytest.approx(-np.log(probabilities).mean())


def without_ends(tokens, offsets, end):
    """The documents without their ends, but for the last one's."""
    tokens, offsets = np.asarray(tokens), np.asarray(offsets)
    keep = (tokens != end) | (np.arange(len(tokens)) == len(tokens) - 1)
    return tokens[keep], np.concatenate([[0], np.cumsum(keep)])[offsets]
