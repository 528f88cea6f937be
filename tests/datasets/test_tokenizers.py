import json
from pathlib import Path

import numpy as np
import pytest

from gentrain.datasets import tokenizers
from gentrain.datasets.build import build
from gentrain.errors import ConfigError, DataError

KINDS = ["bytes", "chars", "words", "sentencepiece"]


@pytest.fixture
def unicode(config, tmp_path):
    """Splits given as files; valid has characters and words that train lacks."""
    folder = tmp_path / "texts"
    folder.mkdir()
    train = [f"Zoë → {i} naïve 🐙 apples, pears; plums!" for i in range(400)]
    (folder / "train.txt").write_text("\n".join(train))
    (folder / "valid.txt").write_text("Zoë: ∀ quince\n")
    (folder / "test.txt").write_text("apples\n")
    config.data.name, config.data.text.unit, config.data.vocab_size = f"text:{folder}", "line", 0
    return config


def decoded(data, split):
    tokens, offsets = data.split(split).documents
    ends = [tokens[offsets[i + 1] - 1] for i in range(len(offsets) - 1)]
    assert set(ends) == {data.spec.end}
    return [data.spec.decode(tokens[offsets[i] : offsets[i + 1] - 1]) for i in range(len(offsets) - 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_train_comes_back(unicode, kind):
    unicode.data.tokenizer, unicode.data.vocab_size = kind, 400 if kind == "sentencepiece" else 0
    data = build(unicode, None)

    assert decoded(data, "train")[3] == "Zoë → 3 naïve 🐙 apples, pears; plums!"
    assert data.spec.vocab == data.spec.end + 1
    assert data.split("train").documents[0].max() == data.spec.end
    assert data.split("test").characters == len("apples") + 1


def test_what_train_lacks(unicode):
    expected = {
        "bytes": "Zoë: ∀ quince",
        "chars": "Zoë\ufffd \ufffd \ufffdu\ufffdn\ufffde",
        "words": "Zoë <unk> <unk> <unk>",
    }
    for kind, text in expected.items():
        unicode.data.tokenizer = kind
        assert decoded(build(unicode, None), "valid") == [text]
    unicode.data.tokenizer, unicode.data.vocab_size = "sentencepiece", 400
    assert decoded(build(unicode, None), "valid") == ["Zoë: ∀ quince"]


def test_chars_reserve_the_unknown_only_where_needed(text):
    data = build(text, None)
    assert data.spec.vocab == len(set("".join(decoded(data, "train")))) + 1


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_character_that_train_lacks_is_unknown_in_any_held_out_split(unicode, split):
    folder = Path(unicode.data.name.partition(":")[2])
    (folder / "valid.txt").write_text("apples\n")
    (folder / f"{split}.txt").write_text("apples ∀\n")
    assert decoded(build(unicode, None), split) == ["apples \ufffd"]


def test_words_keep_the_commonest(unicode):
    unicode.data.tokenizer, unicode.data.vocab_size = "words", 4
    data = build(unicode, None)
    assert data.spec.vocab == 5
    kept = [data.spec.decode(np.array([i])) for i in range(4)]
    assert kept[0] == "<unk>"
    assert set(kept[1:]) <= {"Zoë", "→", "naïve", "🐙", "apples", ",", "pears", ";", "plums", "!"}


def test_sentencepiece_spells_newlines_and_spaces(config, tmp_path):
    (tmp_path / "a.txt").write_text("one  two\n\n three\n" * 300)
    config.data.name, config.data.tokenizer, config.data.vocab_size = f"text:{tmp_path / 'a.txt'}", "sentencepiece", 300
    config.data.valid_fraction, config.data.test_fraction = 0.1, 0.1
    data = build(config, None)
    assert "".join(decoded(data, s)[0] for s in ("train", "valid", "test")) == "one  two\n\n three\n" * 300


# Vowel signs and a virama, points, an accent that is a character of its own, joiners within words and symbols.
MARKED = [
    "नमस्ते दुनिया क्षत्रिय",
    "שָׁלוֹם עוֹלָם",
    "cafe\u0301 nai\u0308ve",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "👩\u200d💻 ❤\ufe0f",
    "don't well-met",
]


@pytest.mark.parametrize("document", MARKED)
def test_words_keep_their_marks(config, tmp_path, document):
    (tmp_path / "a.txt").write_text(f"{document}\n" * 30)
    config.data.name, config.data.text.unit, config.data.tokenizer = f"text:{tmp_path / 'a.txt'}", "line", "words"
    config.data.valid_fraction = config.data.test_fraction = 0.0
    data = build(config, None)
    assert decoded(data, "train")[0] == document
    assert data.spec.vocab == 2 + len(document.split())  # a word is a word: with the unknown one and the end


def test_words_without_marks_are_split_as_in_ascii():
    text = "Well-met, <unk>! 'Tis don't e.g. x_1 a--b (naïve) 3.14 → 🐙"
    assert tokenizers.word_pattern().findall(text) == tokenizers.ASCII_WORDS.findall(text)
    assert tokenizers.split_words("a-b, c") == ["a-b", ",", "c"]


ODD = "\u2581a \u2581\u2581 b\u2581 \ue000 \ue0001 \ue000\u2581 <0x41> <unk> <s> \t\u00a0\u3000 c\u0000d \ufffd \ufeff"


def test_sentencepiece_gives_back_any_text(config, tmp_path):
    (tmp_path / "train.txt").write_text("plain words, and\u2581more\n" * 100)
    (tmp_path / "valid.txt").write_text(ODD)
    config.data.name, config.data.tokenizer, config.data.vocab_size = f"text:{tmp_path}", "sentencepiece", 300
    config.data.test_fraction = 0.0
    data = build(config, None)
    assert decoded(data, "valid") == [ODD]
    assert decoded(data, "train") == ["plain words, and\u2581more\n" * 100]


def test_sentencepiece_refuses_too_small_a_vocabulary(text):
    text.data.tokenizer, text.data.vocab_size = "sentencepiece", 10
    with pytest.raises(ConfigError, match="vocab_size = 10"):
        build(text, None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_workdir_keeps_the_tokenizer(unicode, tmp_path, cache, kind):
    unicode.data.tokenizer, unicode.data.vocab_size = kind, 400 if kind == "sentencepiece" else 0
    workdir = tmp_path / "run"
    before = build(unicode, workdir)
    texts = decoded(before, "train")
    assert (workdir / "tokenizer.json").exists()
    assert (workdir / "tokenizer.model").exists() == (kind == "sentencepiece")
    cache.rename(tmp_path / "gone")
    path = tmp_path / "texts" / "train.txt"
    path.write_text(path.read_text() + "\napples, apples!")  # the data grow, the vocabulary stays
    after = build(unicode, workdir)
    assert after.spec.vocab == before.spec.vocab
    assert decoded(after, "train")[:-1] == texts


def test_a_workdir_of_another_tokenizer_is_refused(unicode, tmp_path):
    build(unicode, tmp_path / "run")
    unicode.data.tokenizer = "bytes"
    with pytest.raises(DataError, match=r"is a 'chars' tokenizer .* 'bytes'"):
        build(unicode, tmp_path / "run")


def test_a_damaged_tokenizer_is_named(unicode, tmp_path):
    build(unicode, tmp_path / "run")
    (tmp_path / "run" / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json is damaged"):
        build(unicode, tmp_path / "run")


def test_new_characters_do_not_slip_into_an_old_vocabulary(text, tmp_path):
    build(text, tmp_path / "run")
    with (tmp_path / "lines.txt").open("a") as file:
        file.write("∀\n")
    with pytest.raises(DataError, match="has the character '∀'"):
        build(text, tmp_path / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_decode_tolerates_any_number(unicode, kind):
    unicode.data.tokenizer, unicode.data.vocab_size = kind, 400 if kind == "sentencepiece" else 0
    spec = build(unicode, None).spec
    assert isinstance(spec.decode(np.arange(spec.vocab + 1, dtype=np.int32)), str)
    assert spec.decode(np.zeros(0, np.int32)) == ""
    if kind == "bytes":
        assert spec.decode(np.array([97, 256, 257])) == "a"


def test_tokenizer_json_is_readable(text, tmp_path):
    build(text, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "tokenizer.json").read_text())
    assert kept["kind"] == "chars"
    assert kept["alphabet"] == sorted(kept["alphabet"])
