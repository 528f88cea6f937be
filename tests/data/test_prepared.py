import io
import time
from itertools import pairwise

import numpy as np
import pytest

from gentrain import data
from gentrain.data import corpus, prepared
from gentrain.errors import DataError

tfds = pytest.importorskip("tensorflow_datasets")


class ToyText(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, disable_shuffling=True, features=tfds.features.FeaturesDict({"text": tfds.features.Text()})
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples("t", 50), "validation": self._generate_examples("v", 5)}

    def _generate_examples(self, letter, count):
        for i in range(count):
            yield i, {"text": f"{letter} {i}"}


class ToyImage(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("2.1.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(2, 3, 3)),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(20), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        from PIL import Image

        for i in range(count):
            file = io.BytesIO()
            Image.new("RGB", (3, 2), (i, 100, 200 + i % 2)).save(file, "PNG")
            file.seek(0)
            yield i, {"image": file, "label": i % 2}


@pytest.fixture
def toys(config, tmp_path):
    for toy in (ToyText, ToyImage):
        toy(data_dir=tmp_path / "tfds", file_format="array_record").download_and_prepare()
    config.data.batch_size = 4
    return config


def texts(found, split):
    tokens, offsets = found.split(split).documents
    return [found.spec.decode(tokens[a : b - 1]) for a, b in pairwise(offsets)]


def test_a_text_set_is_read_without_tensorflow(toys, tmp_path):
    toys.data.name, toys.data.tokenizer, toys.data.test_fraction = "tfds:toy_text", "bytes", 0.1
    found = data.build(toys, None)
    assert texts(found, "train") == [f"t {i}" for i in range(45)]
    assert texts(found, "test") == [f"t {i}" for i in range(45, 50)]  # the end of train
    assert texts(found, "valid") == [f"v {i}" for i in range(5)]
    for name in ("tfds:toy_text:1.0.0", "tfds:toy_text:1.*.*", f"tfds:{tmp_path / 'tfds' / 'toy_text' / '1.0.0'}"):
        toys.data.name = name
        assert data.build(toys, None).summary["tokens"] == found.summary["tokens"]


def test_an_image_set_is_read_without_tensorflow(toys):
    toys.data.name, toys.data.conditional, toys.data.valid_fraction = "tfds:toy_image", True, 0.2
    found = data.build(toys, None)
    assert found.spec._replace(decode=None) == data.Spec(256, 18, None, "image", None, 2)
    assert [len(found.split(split).documents[1]) - 1 for split in corpus.SPLITS] == [16, 4, 4]
    batch = found.train.batch(0)
    np.testing.assert_array_equal(batch["tokens"][:, 0] % 2, batch["context"][:, 0])
    np.testing.assert_array_equal(batch["tokens"][:, 2], 200 + batch["context"][:, 0])
    toys.data.image_size = 5
    assert data.build(toys, None).spec.length == 75


def test_an_unprepared_set_fails_at_once_with_the_command(config):
    config.data.name = "tfds:mnist"
    start = time.monotonic()
    with pytest.raises(DataError, match=r"tfds:mnist is not prepared .* run: python -m launch\.prepare --config="):
        data.build(config, None)
    assert time.monotonic() - start < 2


def test_unfinished_and_missing_folders_are_not_sets(config, tmp_path):
    (tmp_path / "tfds" / "mnist" / "3.0.1").mkdir(parents=True)
    for name in ("mnist", "mnist:3.0.1"):
        config.data.name = f"tfds:{name}"
        with pytest.raises(DataError, match="is not prepared"):
            data.build(config, None)
    config.data.name = f"tfds:{tmp_path / 'tfds' / 'mnist' / '3.0.1'}"
    with pytest.raises(DataError, match="is not a prepared TFDS set"):
        data.build(config, None)


def test_versions_and_configs(tmp_path):
    def make(path):
        (tmp_path / "tfds" / path).mkdir(parents=True)
        (tmp_path / "tfds" / path / "dataset_info.json").write_text("{}")
        return tmp_path / "tfds" / path

    make("a/1.9.0")
    newest = make("a/1.10.0")
    assert prepared.find("a") == newest
    only = make("b/small/1.0.0")
    assert prepared.find("b") == prepared.find("b/small") == prepared.find("b/small:1.0.0") == only
    make("b/large/1.0.0")
    with pytest.raises(DataError, match="configs large, small: name one, as tfds:b/large"):
        prepared.find("b")


def test_a_missing_feature_is_named(toys):
    toys.data.name, toys.data.text_key = "tfds:toy_text", "body"
    with pytest.raises(DataError, match=r"text_key = 'body' nor 'image'; it has: text"):
        data.build(toys, None)


def test_tfrecords_need_tensorflow(toys, tmp_path, monkeypatch):
    info = tmp_path / "tfds" / "toy_text" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    toys.data.name = "tfds:toy_text"
    with pytest.raises(DataError, match="stored as tfrecord, which only TensorFlow reads: pip install tensorflow-cpu"):
        data.build(toys, None)


def test_preparing(config, tmp_path, capsys):
    from launch.prepare import prepare

    assert prepared.find(prepared.prepare("toy_text").as_posix()) == tmp_path / "tfds" / "toy_text" / "1.0.0"
    config.data.name = "tfds:toy_text"
    prepare(config, tmp_path / "run")
    assert "train: " in capsys.readouterr().out
    assert (tmp_path / "run" / "tokenizer.json").exists()
    with pytest.raises(DataError, match="cannot prepare tfds:no_such_set"):
        prepared.prepare("no_such_set")


def test_prepare_says_when_tensorflow_is_missing(monkeypatch):
    def fail(self, **options):
        raise ImportError("Failed importing TensorFlow, which is needed")

    monkeypatch.setattr(ToyText, "download_and_prepare", fail)
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs TensorFlow .* run: pip install tensorflow-cpu"):
        prepared.prepare("toy_text")
