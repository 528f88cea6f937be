import io
import os
import time

import numpy as np
import pytest
from PIL import EpsImagePlugin

from gentrain.datasets import store, tfds_sets
from gentrain.datasets.build import build, expected_spec
from gentrain.datasets.reading import read_source
from gentrain.datasets.spec import ImageSpec
from gentrain.errors import ConfigError, DataError
from tests.datasets.helpers import texts, unnamed

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


class ToyCaptions(tfds.core.GeneratorBasedBuilder):
    """Picture i is filled with the colour (i, i, 100), or grey i, and i % 4 wide texts are about it: 'i: 0', 'i: 1'."""

    VERSION = tfds.core.Version("1.0.0")
    channels = 3

    def _info(self):
        caption = {"id": tfds.features.Scalar(np.int64), "text": tfds.features.Text()}
        image = tfds.features.Image(shape=(None, None, self.channels))
        features = {"image": image, "captions": tfds.features.Sequence(caption)}
        return tfds.core.DatasetInfo(
            builder=self, disable_shuffling=True, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples(0, 12), "val": self._generate_examples(20, 26)}

    def _generate_examples(self, start, stop):
        from PIL import Image

        for i in range(start, stop):
            file = io.BytesIO()
            grey = i % 2 or self.channels == 1
            Image.new("L" if grey else "RGB", (3 + i % 3, 2), i if grey else (i, i, 100)).save(file, "PNG")
            file.seek(0)
            yield i, {"image": file, "captions": [{"id": k, "text": f"{i}: {k}"} for k in range(i % 4)]}


class ToyGreyCaptions(ToyCaptions):
    channels = 1


@pytest.fixture
def toys(config, tmp_path):
    for toy in (ToyText, ToyImage, ToyCaptions, ToyGreyCaptions):
        toy(data_dir=tmp_path / "tfds", file_format="array_record").download_and_prepare()
    config.data.batch_size = 4
    return config


def test_a_text_set_is_read_without_tensorflow(toys, tmp_path):
    toys.data.name, toys.data.tokenizer, toys.data.test_fraction = "tfds:toy_text", "bytes", 0.1
    data = build(toys, None)
    assert texts(data, "train") == [f"t {i}" for i in range(45)]
    assert texts(data, "test") == [f"t {i}" for i in range(45, 50)]  # the end of train
    assert texts(data, "valid") == [f"v {i}" for i in range(5)]
    for name in ("tfds:toy_text:1.0.0", "tfds:toy_text:1.*.*", f"tfds:{tmp_path / 'tfds' / 'toy_text' / '1.0.0'}"):
        toys.data.name = name
        assert build(toys, None).summary["tokens"] == data.summary["tokens"]


def test_an_image_set_is_read_without_tensorflow(toys):
    toys.data.name, toys.data.conditional, toys.data.valid_fraction = "tfds:toy_image", True, 0.2
    data = build(toys, None)
    assert unnamed(data.spec) == ImageSpec(256, 18, context_vocab=2, shape=(2, 3, 3))
    assert [len(data.split(split).documents[1]) - 1 for split in store.SPLITS] == [16, 4, 4]
    batch = data.train.batch(0)
    np.testing.assert_array_equal(batch["tokens"][:, 0] % 2, batch["context"][:, 0])
    np.testing.assert_array_equal(batch["tokens"][:, 2], 200 + batch["context"][:, 0])
    toys.data.image_size = 5
    assert build(toys, None).spec.length == 75


CAPTIONS = {
    "train": [f"{i}: {k}" for i in range(10) for k in range(i % 4)],
    "valid": [f"{i}: {k}" for i in range(20, 26) for k in range(i % 4)],
    "test": [f"{i}: {k}" for i in (10, 11) for k in range(i % 4)],
}


def test_a_set_is_made_of_regular_files_in_its_folder(toys, tmp_path):
    toys.data.name = "tfds:toy_text"
    folder = tfds_sets.find("toy_text")
    for plant in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(tmp_path / "out")):
        (tmp_path / "out").write_text("")
        plant(folder / "x")
        with pytest.raises(DataError, match=r"is not as TFDS prepares a set: .*/x (is no regular file|leads out of)"):
            build(toys, None)
        (folder / "x").unlink()
    build(toys, None)


def test_no_picture_of_a_set_is_given_to_ghostscript(toys, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow would look for it at the first PostScript
    toys.data.name = "tfds:toy_image"
    build(toys, None)
    assert EpsImagePlugin.gs_binary is False


@pytest.fixture
def captioned(toys):
    toys.data.name, toys.data.tfds.text_key, toys.data.test_fraction = "tfds:toy_captions", "captions/text", 0.2
    toys.data.conditional, toys.data.image_size = True, 4
    return toys


def test_captions_are_about_their_own_picture(captioned):
    captioned.data.conditional = False
    assert build(captioned, None).spec.context_vocab == 0  # and is not what is data in the cache then
    captioned.data.conditional = True
    data = build(captioned, None)
    assert (data.spec.kind, data.spec.context_vocab, data.spec.context_shape) == ("text", 256, (4, 4, 3))
    for split in store.SPLITS:
        assert texts(data, split) == CAPTIONS[split]  # the pictures at train's end are test's, with all their captions
        part = data.split(split)
        for batch in [*map(part.batch, range(part.batches)), data.train.batch(3)]:
            assert {k: (v.shape, v.dtype) for k, v in batch.items()} == data.spec.batch_shapes(4)
            for tokens, mask, context in zip(batch["tokens"], batch["mask"], batch["context"], strict=True):
                value = int(data.spec.decode(tokens[mask][:-1]).split(":")[0]) if mask.any() else 0
                blue = value if value % 2 or not mask.any() else 100
                np.testing.assert_array_equal(context, np.broadcast_to([value, value, blue], (4, 4, 3)))
                assert data.spec.decode_context(context).dtype == np.uint8


def test_grey_pictures_of_captions_become_colour(captioned):
    captioned.data.name = "tfds:toy_grey_captions"
    data = build(captioned, None)
    assert data.spec.context_shape == (4, 4, 3)
    batch = data.split("valid").batch(0)
    assert [
        data.spec.decode(tokens[mask][:2]) for tokens, mask in zip(batch["tokens"], batch["mask"], strict=True)
    ] == [str(context[0, 0, 0]) for context in batch["context"]]
    assert np.all(batch["context"] == batch["context"][:, :1, :1, :1])


def test_captions_of_one_picture_share_it(captioned):
    raw = read_source("tfds:toy_captions", captioned.data)
    assert len(raw.splits["train"].labels) == len(CAPTIONS["train"])
    assert len(raw.splits["train"].contexts) == len([i for i in (*range(12), *range(20, 26)) if i % 4])


def test_captions_alone_are_text(captioned):
    captioned.data.conditional, captioned.data.image_size, captioned.data.layout = False, 0, "pack"
    data = build(captioned, None)
    assert [texts(data, split) for split in store.SPLITS] == [CAPTIONS[split] for split in store.SPLITS]
    assert data.spec.context_vocab == 0
    assert "context" not in data.train.batch(0)


def test_pictures_of_captions_need_a_size(captioned):
    captioned.data.image_size = 0
    with pytest.raises(DataError, match=r"differ in .* has \(2, 4, 3\), .* has \(2, 5, 3\); set data.image_size"):
        build(captioned, None)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("captions", r"set data.tfds.text_key to one of captions/id, captions/text"),
        ("captions/id", r"int64 in 'captions/id': set data.tfds.text_key to a text"),
        ("body", r"text_key = 'body' nor 'image' with a class label; it has: captions, captions/id, captions/text, im"),
    ],
)
def test_a_key_that_is_no_text(captioned, key, message):
    captioned.data.tfds.text_key = key
    with pytest.raises(DataError, match=message):
        build(captioned, None)


def test_text_without_pictures_has_no_contexts(captioned):
    captioned.data.name, captioned.data.tfds.text_key = "tfds:toy_text", "text"
    with pytest.raises(ConfigError, match=r"needs class labels, or .* and tfds:toy_text has none"):
        build(captioned, None)


def test_the_spec_of_captions_is_known_before_they_are_there(config):
    config.data.name, config.data.conditional, config.data.image_size = "tfds:coco_captions", True, 32
    config.data.tokenizer = "sentencepiece"
    spec = expected_spec(config)
    assert (spec.vocab, spec.context_vocab, spec.context_shape) == (8193, 256, (32, 32, 3))
    assert spec.batch_shapes(2)["context"] == ((2, 32, 32, 3), np.uint8)
    for key, value in (("image_size", 0), ("name", "cmudict"), ("tokenizer", "chars")):
        other = config.copy_and_resolve_references()
        other.data[key] = value
        assert expected_spec(other) is None
    config.data.conditional = False
    assert expected_spec(config).context_vocab == 0


def test_the_spec_of_images_is_known_from_the_code_of_their_set(config):
    config.data.name, config.data.conditional = "tfds:cifar10", True
    spec = expected_spec(config)
    assert unnamed(spec) == ImageSpec(256, 3072, context_vocab=10, shape=(32, 32, 3))
    config.data.conditional, config.data.image_size, config.data.levels = False, 16, 2
    spec = expected_spec(config)
    assert (spec.vocab, spec.length, spec.shape, spec.context_vocab) == (2, 768, (16, 16, 3), 0)
    for unknown in ("tfds:no_such_set", "tfds:imagenet_v2", "digits"):  # imagenet's images have any size
        config.data.name = unknown
        assert expected_spec(config) is None


def test_an_unprepared_set_fails_at_once_with_the_command(config):
    config.data.name = "tfds:mnist"
    start = time.monotonic()
    with pytest.raises(DataError, match=r"tfds:mnist is not prepared .* run: python -m launch\.prepare --config="):
        build(config, None)
    assert time.monotonic() - start < 2


def test_unfinished_and_missing_folders_are_not_sets(config, tmp_path):
    (tmp_path / "tfds" / "mnist" / "3.0.1").mkdir(parents=True)
    for name in ("mnist", "mnist:3.0.1"):
        config.data.name = f"tfds:{name}"
        with pytest.raises(DataError, match="is not prepared"):
            build(config, None)
    config.data.name = f"tfds:{tmp_path / 'tfds' / 'mnist' / '3.0.1'}"
    with pytest.raises(DataError, match="is not a prepared TFDS set"):
        build(config, None)


def test_versions_and_configs(tmp_path):
    def make(path):
        (tmp_path / "tfds" / path).mkdir(parents=True)
        (tmp_path / "tfds" / path / "dataset_info.json").write_text("{}")
        return tmp_path / "tfds" / path

    make("a/1.9.0")
    newest = make("a/1.10.0")
    assert tfds_sets.find("a") == newest
    only = make("b/small/1.0.0")
    assert tfds_sets.find("b") == tfds_sets.find("b/small") == tfds_sets.find("b/small:1.0.0") == only
    make("b/large/1.0.0")
    with pytest.raises(DataError, match="configs large, small: name one, as tfds:b/large"):
        tfds_sets.find("b")


def test_a_missing_feature_is_named(toys):
    toys.data.name, toys.data.tfds.text_key = "tfds:toy_text", "body"
    with pytest.raises(DataError, match=r"text_key = 'body' nor 'image'; it has: text"):
        build(toys, None)


def test_tfrecords_need_tensorflow(toys, tmp_path, monkeypatch):
    info = tmp_path / "tfds" / "toy_text" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setattr(tfds_sets.importlib.util, "find_spec", lambda name: None)
    toys.data.name = "tfds:toy_text"
    with pytest.raises(DataError, match="stored as tfrecord, which only TensorFlow reads: pip install tensorflow-cpu"):
        build(toys, None)


def test_preparing(config, tmp_path, capsys):
    from launch.prepare import prepare

    assert tfds_sets.find(tfds_sets.prepare("toy_text").as_posix()) == tmp_path / "tfds" / "toy_text" / "1.0.0"
    config.data.name = "tfds:toy_text"
    prepare(config, tmp_path / "run")
    assert "train: " in capsys.readouterr().out
    assert (tmp_path / "run" / "tokenizer.json").exists()
    with pytest.raises(DataError, match="cannot prepare tfds:no_such_set"):
        tfds_sets.prepare("no_such_set")


def test_preparing_what_captions_are_made_of(config, capsys):
    from launch.prepare import prepare

    config.data.name, config.data.conditional, config.data.length = "captions:tfds:toy_image", True, 27
    prepare(config, None)
    assert "context: 256 symbols, shape (2, 6, 3)" in capsys.readouterr().out
    data = build(config, None)
    batch = data.train.batch(0)
    for tokens, mask, context in zip(batch["tokens"], batch["mask"], batch["context"], strict=True):
        left, right = (("no", "yes")[half[0, 0, 0] % 2] for half in np.split(context, 2, axis=1))
        assert data.spec.decode(tokens[mask][:-1]) == f"a {left} to the left of a {right}"


def test_prepare_says_when_tensorflow_is_missing(monkeypatch):
    def fail(self, **options):
        raise ImportError("Failed importing TensorFlow, which is needed")

    monkeypatch.setattr(ToyText, "download_and_prepare", fail)
    monkeypatch.setattr(tfds_sets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs TensorFlow .* run: pip install tensorflow-cpu"):
        tfds_sets.prepare("toy_text")
