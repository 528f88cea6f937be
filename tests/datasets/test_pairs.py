"""Texts with contexts: a text and what it is about stay together, whatever happens to them on the way to a batch."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from gentrain.datasets import fetch, store
from gentrain.datasets.build import build
from gentrain.datasets.sources import captions as captions_source
from gentrain.datasets.sources import cmudict
from gentrain.errors import ConfigError, DataError
from tests.datasets.helpers import texts

LETTERS = "abcdegiou'"
SPECIAL = """
'em AH0 M
able-bodied EY1 B AH0 L B AA1 D IY0 D
aalto AA1 L T OW2 # name, finnish
a.m. EY2 EH1 M
read R EH1 D
read(2) R IY1 D
"""


def spelt(count):
    """Different words whose n-th phone is the n-th letter, so that a text tells what it is about."""
    draw = np.random.default_rng(0)
    words = {"".join(draw.choice(list(LETTERS), draw.integers(2, 9))) for _ in range(count)}
    return sorted(words), [" ".join(f"{letter}{i % 3}" for i, letter in enumerate(word)) for word in sorted(words)]


def rows(data, batch):
    """(text, context) of each row that is not masked out."""
    return [
        (data.spec.decode(tokens[mask][:-1]), data.spec.decode_context(context))
        for tokens, mask, context in zip(batch["tokens"], batch["mask"], batch["context"], strict=True)
        if mask.any()
    ]


def passed(data, split):
    part = data.split(split)
    return [row for i in range(part.batches) for row in rows(data, part.batch(i))]


@pytest.fixture
def dictionary(config, tmp_path, monkeypatch):
    """About 300 words, in conditional data; write(lines) puts others in their place."""
    words, phones = spelt(300)
    (tmp_path / "cmudict.dict").write_text("".join(f"{w} {p}\n" for w, p in zip(words, phones, strict=True)))
    monkeypatch.setattr(fetch, "package", lambda pin: tmp_path)
    config.data.name, config.data.conditional, config.data.length, config.data.batch_size = "cmudict", True, 20, 8
    return config


def test_a_dictionary_is_read_as_words_and_their_first_pronunciation(dictionary, tmp_path):
    (tmp_path / "cmudict.dict").write_text(SPECIAL.lstrip())
    raw = cmudict.read("", dictionary.data)
    seen = {}
    for arrays in raw.splits.values():
        for label, (start, stop) in zip(arrays.labels, pairwise(arrays.offsets), strict=True):
            seen[tuple(arrays.contexts[label])] = bytes(arrays.tokens[start:stop]).decode()
    assert raw.meta["alphabet"] == "'adelmort"
    # 'em, aalto and read, by the numbers of their letters
    assert seen == {(0, 0, 1, 4, 6): "AH M", (2, 2, 5, 9, 7): "AA L T OW", (0, 8, 4, 2, 3): "R EH D"}


def test_spellings_are_padded_on_the_left(dictionary):
    data = build(dictionary, None)
    alphabet = sorted(LETTERS)
    assert (data.spec.context_vocab, data.spec.context_shape) == (len(alphabet) + 1, (8,))
    for batch in (data.train.batch(0), data.split("valid").batch(0)):
        assert batch["context"].dtype == np.int32
        for text, context in zip(batch["tokens"], batch["context"], strict=True):
            word = data.spec.decode_context(context)
            assert context.tolist() == [0] * (8 - len(word)) + [alphabet.index(letter) + 1 for letter in word]
            assert 2 <= len(word) <= 8 or not text.any()


def test_words_are_split_by_their_hash(dictionary):
    data, all_words = build(dictionary, None), []
    for split, low, high in (("train", 0, 90), ("valid", 90, 95), ("test", 95, 100)):
        words = [word for _, word in passed(data, split)]
        assert words
        assert all(low <= int(hashlib.sha1(word.encode()).hexdigest(), 16) % 100 < high for word in words)
        all_words += words
    assert sorted(all_words) == spelt(300)[0]


@pytest.mark.parametrize("tokenizer", ["bytes", "chars", "words", "sentencepiece"])
def test_a_text_keeps_its_context(dictionary, tokenizer):
    dictionary.data.tokenizer = tokenizer
    dictionary.data.vocab_size = {"words": 0, "sentencepiece": 280}.get(tokenizer, 0)
    for _ in range(2):  # the second time from the cache
        data = build(dictionary, None)
        seen = [row for step in range(60) for row in rows(data, data.train.batch(step))]
        seen += [row for split in store.SPLITS for row in passed(data, split)]
        assert len(set(seen)) == len(spelt(300)[0])
        if tokenizer == "words":  # an apostrophe is no word of its own kind
            seen = [row for row in seen if "'" not in row[1]]
        assert all(text.replace(" ", "") == word for text, word in seen)


def test_the_cache_gives_back_what_was_written(dictionary):
    first, again = build(dictionary, None), build(dictionary, None)
    for step in range(5):
        for key, values in first.train.batch(step).items():
            np.testing.assert_array_equal(again.train.batch(step)[key], values)
    assert first.spec == again.spec


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_read_their_own_rows_with_their_contexts(dictionary, processes):
    whole = build(dictionary, None)
    mine = [build(dictionary, None, part) for part in np.split(np.arange(8), processes)]
    last = whole.split("valid").batches - 1
    for get in (lambda d: d.train.batch(7), lambda d: d.split("valid").batch(last)):
        for key, values in get(whole).items():
            np.testing.assert_array_equal(np.concatenate([get(data)[key] for data in mine]), values)


def test_rows_that_fill_up_have_an_empty_context(dictionary):
    dictionary.data.batch_size = 7
    data = build(dictionary, None)
    part = data.split("valid")
    batch = part.batch(part.batches - 1)
    empty = ~batch["mask"].any(axis=1)
    assert 0 < empty.sum() < 7
    assert not batch["context"][empty].any()
    assert batch["context"][~empty].any(axis=1).all()
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == data.spec.batch_shapes(7)


def test_a_text_that_does_not_fit_says_which_length_would(dictionary):
    longest = 2 * 8 - 1 + 1  # eight phones, the spaces between them, the end
    dictionary.data.length = longest - 1
    with pytest.raises(DataError, match=r"cmudict has a text of 16 tokens, .*set data.length = 16 \(it is 15\)"):
        build(dictionary, None)
    dictionary.data.length = longest
    assert build(dictionary, None).split("train").tokens
    dictionary.data.length, dictionary.data.conditional = 5, False
    assert build(dictionary, None).train.batch(0)["tokens"].shape == (8, 5)


def test_texts_with_contexts_are_not_packed(dictionary):
    dictionary.data.layout = "pack"
    with pytest.raises(ConfigError, match=r"layout='pack' .* set it to 'pad'"):
        build(dictionary, None)
    dictionary.data.conditional = False
    data = build(dictionary, None)
    assert "context" not in data.train.batch(0)
    assert data.spec.context_vocab == 0
    documents = cmudict.read("", dictionary.data).meta["documents"]
    assert [len(texts(data, split)) for split in store.SPLITS] == list(documents.values())


def test_truncated_contexts_are_made_anew(dictionary, cache):
    before = build(dictionary, None).train.batch(0)["context"]
    (file,) = cache.glob("*/contexts")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="contexts in the cache is damaged"):
        np.testing.assert_array_equal(build(dictionary, None).train.batch(0)["context"], before)


@pytest.fixture
def captions(config):
    config.data.name, config.data.conditional, config.data.length, config.data.batch_size = (
        "captions:digits",
        True,
        26,
        8,
    )
    return config


def halves(context):
    """The two digits of a pair, as scikit-learn has them."""
    values = np.round(context[..., 0] * (16 / 255))
    return values[:, :8].tobytes(), values[:, 8:].tobytes()


def test_captions_say_what_stands_where(captions):
    from sklearn.datasets import load_digits

    digits = load_digits()
    label = {image.tobytes(): int(name) for image, name in zip(digits.images, digits.target, strict=True)}
    spoken = {name: "an 8" if name == 8 else f"a {name}" for name in range(10)}
    data = build(captions, None)
    assert (data.spec.kind, data.spec.context_vocab, data.spec.context_shape) == ("text", 256, (8, 16, 1))
    batch = data.train.batch(0)
    assert (batch["context"].dtype, batch["context"].max()) == (np.uint8, 255)
    seen = {split: [halves(context) for _, context in passed(data, split)] for split in store.SPLITS}
    for split in store.SPLITS:
        for (text, _), (left, right) in zip(passed(data, split), seen[split], strict=True):
            assert text == f"{spoken[label[left]]} to the left of {spoken[label[right]]}"
    assert all(text.startswith(("a ", "an 8")) for text, _ in rows(data, batch))

    captions.data.name = "digits"
    given = build(captions, None)
    for split in store.SPLITS:  # every image of the split once on each side, and none of another split
        images = np.sort([x.astype(float).tobytes() for x in given.split(split).documents[0].reshape(-1, 64)])
        for side in (0, 1):
            np.testing.assert_array_equal(np.sort([pair[side] for pair in seen[split]]), images)
        assert all(left != right for left, right in seen[split])


def test_the_number_of_pairs(captions, monkeypatch, tmp_path):
    data = build(captions, None)
    images = [len(texts(data, split)) for split in store.SPLITS]
    few, many = [], []
    for count, kept in ((30, few), (3 * images[0], many)):
        captions.data.captions.pairs = count
        data = build(captions, None)
        assert [len(texts(data, split)) for split in store.SPLITS] == [count, *images[1:]]
        kept += [(text, context.tobytes()) for text, context in passed(data, "train")]
    assert few == many[:30]
    assert len(set(many)) > 2.9 * images[0]  # each round pairs anew
    assert len({text.split()[1] for text, _ in few}) > 5  # not the first classes only
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "another"))  # made once more, the same
    assert many == [(text, context.tobytes()) for text, context in passed(build(captions, None), "train")]


def test_the_pictures_of_a_pair_are_resized_each(captions):
    whole = build(captions, None).train.batch(0)["context"]
    captions.data.image_size = 5
    data = build(captions, None)
    assert data.spec.context_shape == (5, 10, 1)
    for picture, small in zip(whole, data.train.batch(0)["context"], strict=True):
        for half, side in zip(np.split(picture, 2, axis=1), np.split(small, 2, axis=1), strict=True):
            resized = Image.fromarray(half[..., 0]).resize((5, 5), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(side[..., 0], np.asarray(resized))


def test_neighbours_stand_in_circles():
    pairs = list(captions_source.neighbours(7, 17))
    assert len(pairs) == 17
    assert sorted(i for i, _ in pairs[:7]) == sorted(j for _, j in pairs[7:14]) == list(range(7))
    assert all(right == following for (_, right), (following, _) in pairwise(pairs[:7]))
    assert all(i != j for i, j in pairs)
    assert pairs[:7] != pairs[7:14]
    assert list(captions_source.neighbours(1, 2)) == [(0, 0), (0, 0)]
    assert list(captions_source.neighbours(0, 0)) == []


@pytest.fixture
def folders(config, tmp_path):
    """Two folders of coloured pictures, each filled with its class's number and its own."""
    for name, first, size in (("a", 0, (3, 2)), ("b", 50, (5, 4))):
        for i, thing in enumerate(("ant", "hen", "Owl", "11", "12")):
            (tmp_path / name / thing).mkdir(parents=True)
            for k in range(4):
                Image.new("RGB", size, (i, first + k, 200)).save(tmp_path / name / thing / f"{k}.png")
    config.data.conditional, config.data.length, config.data.batch_size, config.data.image_size = True, 40, 8, 4
    config.data.valid_fraction = config.data.test_fraction = 0.0
    return [f"captions:images:{tmp_path / name}" for name in "ab"]


def test_pictures_and_texts_of_a_mixture_stay_together(config, folders):
    config.data.name, config.data.mixture.sources = "mixture", ((folders[0], 1.0, 0), (folders[1], 1.0, 0))
    data = build(config, None)
    assert data.spec.context_shape == (4, 8, 3)
    names = ["an 11", "a 12", "an Owl", "an ant", "a hen"]
    number = [3, 4, 2, 0, 1]  # the classes in the order of their folders
    seen = [row for step in range(10) for row in rows(data, data.train.batch(step))] + passed(data, "train")
    for text, context in seen:
        halves = [np.unique(half.reshape(-1, 3), axis=0) for half in np.split(context, 2, axis=1)]
        assert all(len(half) == 1 and half[0, 2] == 200 for half in halves)
        assert (halves[0][0, 1] < 50) == (halves[1][0, 1] < 50)  # both of one source
        assert text == " to the left of ".join(names[number.index(half[0, 0])] for half in halves)
    assert {context[0, 0, 1] < 50 for _, context in seen} == {True, False}


def test_contexts_of_a_mixture_must_agree(config, folders, dictionary):
    config.data.name, config.data.mixture.sources = "mixture", ((folders[0], 1.0, 0), (folders[1], 1.0, 0))
    config.data.image_size, config.data.length = 0, 40
    with pytest.raises(DataError, match=r"contexts must agree: context_shape is \[2, 6, 3\] in .*, \[4, 10, 3\] in"):
        build(config, None)
    config.data.mixture.sources = ((folders[0], 1.0, 0), ("cmudict", 1.0, 0))
    with pytest.raises(DataError, match="contexts must agree"):
        build(config, None)
    config.data.conditional = False
    assert "context" not in build(config, None).train.batch(0)


def test_contexts_of_a_mixture_that_has_none(config, folders, text):
    config.data.mixture.sources, config.data.name = ((folders[0], 1.0, 0), (text.data.name, 1.0, 0)), "mixture"
    with pytest.raises(ConfigError, match=r"needs class labels, or .* and text:.* has none"):
        build(config, None)


def test_a_split_that_one_source_lacks(config, folders, tmp_path):
    for name, split in (("c", "train"), ("d", "train"), ("d", "valid")):
        for i, thing in enumerate(("ant", "hen")):
            (tmp_path / name / split / thing).mkdir(parents=True)
            Image.new("L", (3, 2), i).save(tmp_path / name / split / thing / "x.png")
    config.data.mixture.sources = tuple((f"captions:images:{tmp_path / name}", 1.0, 0) for name in "cd")
    config.data.name = "mixture"
    seen = passed(build(config, None), "valid")
    assert sorted(text for text, _ in seen) == ["a hen to the left of an ant", "an ant to the left of a hen"]
    assert all((context[0, 0, 0], context[0, 7, 0]) == ((1, 0) if text[2] == "h" else (0, 1)) for text, context in seen)


def test_captions_need_named_classes(config, text, tmp_path):
    (tmp_path / "loose").mkdir()
    Image.new("L", (3, 2)).save(tmp_path / "loose" / "x.png")
    for name in (f"images:{tmp_path / 'loose'}", text.data.name):
        config.data.name = f"captions:{name}"
        with pytest.raises(ConfigError, match=r"captions:.*: expected pictures with class names, and .* has none"):
            build(config, None)
