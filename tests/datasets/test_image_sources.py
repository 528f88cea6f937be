"""Sources of images: digits, clothes and folders, read once and split."""

import gzip
import hashlib
import os
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from configs import base
from gentrain.datasets import fetch, store
from gentrain.datasets.build import build
from gentrain.datasets.sources import fashion
from gentrain.datasets.spec import ImageSpec
from gentrain.errors import ConfigError, DataError
from gentrain.options.check import validate
from tests.datasets.helpers import unnamed


def test_digits(config):
    config.data.name, config.data.batch_size, config.data.conditional = "digits", 16, True
    data = build(config, None)
    assert unnamed(data.spec) == ImageSpec(17, 64, context_vocab=10, shape=(8, 8, 1))
    assert sum(len(data.split(split).documents[1]) - 1 for split in store.SPLITS) == 1797
    batch = data.train.batch(0)
    assert batch["mask"].all()
    assert batch["context"].shape == (16, 1)
    assert batch["context"].dtype == np.int32
    image = data.spec.decode(batch["tokens"][0])
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
    data = build(config, None)
    expected = np.minimum(4, np.floor(raw.documents[0] / 16 * 5))
    np.testing.assert_array_equal(data.split("valid").documents[0], expected)
    assert data.spec.vocab == 5
    assert data.spec.context_vocab == 0
    assert "context" not in data.train.batch(0)
    assert set(np.unique(data.spec.decode(np.arange(64) % 5))) == {0, 64, 128, 191, 255}
    assert data.split("valid").characters == data.split("valid").tokens == 64 * 181


def pictures_of(data, split):
    """(label, image) of each document of a split."""
    part = data.split(split)
    batches = [part.batch(i) for i in range(part.batches)]
    real = [(c[0], t) for b in batches for t, m, c in zip(b["tokens"], b["mask"], b["context"], strict=True) if m.all()]
    return [(int(label), tokens.reshape(28, 28)) for label, tokens in real]


def test_mnist5k(config, tmp_path, monkeypatch):
    rows = np.random.default_rng(0).integers(0, 256, (200, 785))
    rows[:, -1] = np.arange(200) // 20
    with gzip.open(tmp_path / "mnist_5k.csv.gz", "wt") as file:
        np.savetxt(file, rows, "%d", delimiter=",")
    monkeypatch.setattr(fetch, "package", lambda pin: tmp_path)
    config.data.name, config.data.conditional = "mnist5k", True
    data = build(config, None)
    assert unnamed(data.spec) == ImageSpec(256, 784, context_vocab=10, shape=(28, 28, 1))
    assert data.spec.decode_context(np.array([3])) == "3"
    seen = {split: pictures_of(data, split) for split in store.SPLITS}
    assert sum(map(len, seen.values())) == 200
    assert all(10 < len(seen[split]) < 30 for split in ("valid", "test"))
    known = {row[:-1].astype(np.int32).tobytes(): row[-1] for row in rows}
    assert all(known[image.tobytes()] == label for label, image in chain(*seen.values()))
    config.data.image_size = 14
    smaller = build(config, None)
    assert unnamed(smaller.spec) == ImageSpec(256, 196, context_vocab=10, shape=(14, 14, 1))
    # Noise that is made smaller keeps its mean and loses its contrast.
    whole, small = (data.train.batch(0)["tokens"] for data in (data, smaller))
    assert abs(whole.mean() - small.mean()) < 3 and small.std() < 0.8 * whole.std()


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
    data = build(clothes, None)
    assert unnamed(data.spec) == ImageSpec(256, 784, context_vocab=10, shape=(28, 28, 1))
    seen = {split: pictures_of(data, split) for split in store.SPLITS}
    assert [[int(image[0, 0]) for _, image in seen[split]] for split in store.SPLITS] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9],
        [100, 101, 102],
    ]
    assert all(np.all(image == image[0, 0]) and image[0, 0] % 100 == 9 - label for label, image in seen["train"])
    assert data.spec.decode_context(np.array([9])) == "ankle boot"
    clothes.data.image_size = 14
    assert unnamed(build(clothes, None).spec) == ImageSpec(256, 196, context_vocab=10, shape=(14, 14, 1))


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
    data = build(folder, None)
    assert unnamed(data.spec) == ImageSpec(256, 6, context_vocab=2, shape=(2, 3, 1))
    assert [data.spec.decode_context(np.array([label])) for label in (0, 1)] == ["ant", "cat"]
    values = {}
    for split in ("train", "valid"):
        part = data.split(split)
        for i in range(part.batches):
            batch = part.batch(i)
            real = batch["mask"][:, 0]
            values |= dict(zip(batch["tokens"][real, 0].tolist(), batch["context"][real, 0].tolist(), strict=True))
    assert values == {**dict.fromkeys(range(15), 1), **dict.fromkeys(range(100, 115), 0)}
    assert data.spec.decode(np.full(6, 7)).tolist() == np.full((2, 3, 1), 7).tolist()


def test_colour_makes_all_images_colour(folder, tmp_path):
    picture(tmp_path / "pictures" / "cat" / "c.png", (1, 2, 3), mode="RGB")
    data = build(folder, None)
    assert data.spec.length == 18
    tokens = np.concatenate([data.split(s).documents[0] for s in ("train", "valid")]).reshape(-1, 6, 3)
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
    data = build(config, None)
    assert [data.split(split).documents[0][0] for split in store.SPLITS] == [1, 2, 3]
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


def test_damaged_images_are_left_out_as_far_as_the_policy_allows(folder, tmp_path):
    folder.data.valid_fraction = folder.data.test_fraction = 0.0
    before = build(folder, None).split("train").documents[0]
    whole = sorted((tmp_path / "pictures" / "cat").glob("*.png"))[-1].read_bytes()
    (tmp_path / "pictures" / "cat" / "y.png").write_bytes(b"not an image")
    (tmp_path / "pictures" / "cat" / "z.png").write_bytes(whole[: len(whole) // 2])  # its header is sound
    folder.data.max_damaged = 0.3
    data = build(folder, None)
    assert data.summary["damaged"] == 2
    np.testing.assert_array_equal(data.split("train").documents[0], before)
    folder.data.max_damaged = 0.01
    with pytest.raises(DataError, match=r"2 of \d+ examples cannot be read, .* the first: .*y\.png"):
        build(folder, None)


def test_images_need_a_folder_with_images(config, tmp_path):
    config.data.name = f"images:{tmp_path / 'no'}"
    with pytest.raises(DataError, match="there is no folder"):
        build(config, None)
    (tmp_path / "no").mkdir()
    with pytest.raises(DataError, match="has no image"):
        build(config, None)


@pytest.mark.parametrize("levels", [1, 257, -1])
def test_levels_are_checked(levels):
    config = base.get_config()
    config.data.name, config.data.levels = "digits", levels
    with pytest.raises(ConfigError, match=f"data.levels={levels}: expected"):
        validate(config)
