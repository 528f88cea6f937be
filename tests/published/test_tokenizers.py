"""A published tokenizer gives the numbers that its own library gives, and texts as they were; one that was learned here
goes out as files that give ours."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from gentrain.datasets import build as building
from gentrain.datasets import fetch, published_tokenizer, tokenizers
from gentrain.datasets.build import build, stored
from gentrain.datasets.tokenizer_files import published_files
from gentrain.errors import ConfigError, DataError
from tests.published.helpers import ROWS, TEXT, make_folder, make_tokenizer

ODD = [
    "",
    " ",
    "a",
    "naïve café ∀x 🐙🏽",
    "e\u0301 \u200d \ufeff \u2028",
    "tabs\t\r\n\n  two",
    "\ud7ff \U0010ffff",
    "<s> </s> mid",
]


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "model")


@pytest.fixture
def data_config(config, tmp_path, folder, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("\n".join(f"{TEXT.split(chr(10))[0]} {n}" for n in range(60)))
    config.data.name, config.data.text.unit = f"text:{tmp_path / 'a.txt'}", "line"
    config.data.tokenizer, config.data.length = f"hf:{folder}", 24
    return config


def test_numbers_are_those_of_the_library_and_texts_come_back(folder):
    ours, library = published_tokenizer.of(fetch.published(f"hf:{folder}")), make_tokenizer(adds_begin=False)
    for text in ODD:
        assert ours.encode_text(text).tolist() == library.encode(text, add_special_tokens=False).ids
        assert ours.decode(ours.encode_text(text)) == text
    raw = [text.encode() for text in ODD]
    tokens, lengths = ours.encode(np.frombuffer(b"".join(raw), np.uint8), np.array([*map(len, raw)]))
    assert tokens.tolist() == [token for text in ODD for token in ours.encode_text(text).tolist()]
    assert lengths.tolist() == [len(ours.encode_text(text)) for text in ODD]
    assert ours.vocab == ROWS and ours.end == 1 and isinstance(ours.decode(np.arange(ROWS)), str)


@pytest.mark.parametrize("adds_begin", [False, True])
def test_what_is_scored_is_what_the_tokenizer_gives_after_its_first(adds_begin, tmp_path):
    ours = published_tokenizer.of(fetch.published(f"hf:{make_folder(tmp_path / 'begun', adds_begin=adds_begin)}"))
    for text in ODD:
        whole = make_tokenizer(adds_begin).encode(text).ids
        inputs, tokens = ours.scored(text)
        assert tokens.tolist() == whole[1:] and len(inputs) == len(tokens)
        assert inputs.tolist() == ([ROWS, *whole[1:-1]] if adds_begin and len(whole) > 1 else whole[:-1])


def test_documents_are_closed_by_its_own_end_and_packed_ones_stay_apart(data_config):
    data_config.data.layout = "pack"
    data = build(data_config, None)
    batch = data.train.batch(0)
    assert data.spec.vocab == ROWS and data.spec.end == 1
    tokens, offsets = data.split("valid").documents
    assert (tokens[offsets[1:] - 1] == 1).all() and (tokens == 1).sum() == len(offsets) - 1
    assert data.spec.decode(tokens[: offsets[1] - 1]).startswith("It is a tale")
    assert (batch["tokens"][batch["mask"]] < ROWS).all()


def test_a_workdir_keeps_it_and_needs_the_folder_no_more(data_config, folder, tmp_path):
    workdir = tmp_path / "run"
    before = build(data_config, workdir)
    for file in folder.iterdir():
        file.unlink()
    again, alone = build(data_config, workdir), stored(workdir)
    assert again.spec == before.spec == alone.spec
    digests = {data.summary["digests"][building.TOKENIZER] for data in (before, again, alone)}
    assert len(digests) == 1
    text = "sound and fury"
    assert alone.spec.tokenizer.encode_text(text).tolist() == before.spec.tokenizer.encode_text(text).tolist()
    with pytest.raises(DataError, match="are not read for this"):
        alone.train.batch(0)
    (workdir / "tokenizer.model").write_bytes(b"{")
    with pytest.raises(DataError, match=r"tokenizer.model is missing or damaged"):
        stored(workdir)


def test_one_that_does_not_belong_to_the_weights_is_refused(tmp_path):
    folder = make_folder(tmp_path / "few", vocab_size=256)
    with pytest.raises(ConfigError, match="does not belong to its weights: it has 300 tokens, their table 256 rows"):
        published_tokenizer.of(fetch.published(f"hf:{folder}"))
    (folder / "tokenizer_config.json").unlink()
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "eos_token_id": None}))
    with pytest.raises(ConfigError, match="names an eos_token"):
        published_tokenizer.of(fetch.published(f"hf:{folder}"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer.json"):
        published_tokenizer.of(fetch.published(f"hf:{folder}"))


@pytest.mark.parametrize("kind", ["bytes", "chars"])
def test_a_learned_one_goes_out_as_files_that_give_its_numbers(kind):
    texts = [text for text in ODD if "<s>" not in text]
    ours = tokenizers.Bytes() if kind == "bytes" else tokenizers.Chars(sorted(set("".join(texts))))
    files = published_files(ours)
    theirs = Tokenizer.from_buffer(files["tokenizer.json"])
    for text in texts:
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode_text(text).tolist()
        assert theirs.encode(text).ids == [ours.end, *ours.encode_text(text).tolist()]
        assert theirs.decode(theirs.encode(text).ids) == text
    assert theirs.token_to_id(json.loads(files["tokenizer_config.json"])["eos_token"]) == ours.end
    assert published_files(tokenizers.Words(["<unk>", "a"])) == {}
