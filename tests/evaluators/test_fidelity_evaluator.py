"""The fidelity evaluator on scikit-learn's digits: generators whose answers are known, and what is kept and asked."""

import collections
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import base
from gentrain import sharding
from gentrain.datasets.build import build
from gentrain.datasets.spec import Images
from gentrain.errors import ConfigError
from gentrain.evaluators import fidelity as evaluator
from gentrain.evaluators import samples
from gentrain.evaluators.network import Onnx, open_network
from gentrain.metrics import manifolds, two_sample
from gentrain.models.base import Sampler
from gentrain.models.classifier import classifier
from gentrain.options.check import validate
from gentrain.sums import declared
from tests.evaluators.test_encoders import dinov2_folder
from tests.evaluators.test_generators import unigram
from tests.helpers import assert_trees_close, objective_of


def digits(**changed):
    config = base.get_config()
    config.data.name, config.data.batch_size, config.evaluate.examples = "digits", 64, 10_000
    config.update_from_flattened_dict(changed)
    return config


def build_evaluator(config, model):
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size)
    return evaluator.build(config, objective_of(model), build(config, None), mesh)


def measured(config, model, params=None):
    return build_evaluator(config, model)({"generator": params}, jax.random.key(0))


def copies() -> Sampler:
    """Draws from the pictures that are its parameters."""

    def sample(params, keys, context=None):
        return params[jax.vmap(lambda key: jax.random.randint(key, (), 0, len(params)))(keys)]

    return Sampler(lambda key: None, sample)


def answers() -> Sampler:
    """Says params[class]."""
    return Sampler(lambda key: None, lambda params, keys, context=None: params[context[:, 0]])


def noise(shape=(8, 8, 1)) -> Sampler:
    one = lambda key: jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    return Sampler(lambda key: None, lambda params, keys, context=None: jax.vmap(one)(keys))


def pictures(config, split, count=10_000):
    labelled = evaluator.with_labels(config)
    part = labelled.split(split)
    read = evaluator.read_images(labelled, part, evaluator.choose_images(labelled, part, count))
    return tuple(map(np.concatenate, zip(*read, strict=True)))


@pytest.fixture(scope="module", autouse=True)
def fits(tmp_path_factory):
    """How often a classifier was trained: with fewer steps, in a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        counted, fit, quick = [], evaluator.fit, jax.config.read("jax_disable_most_optimizations")
        jax.config.update("jax_disable_most_optimizations", False)  # convolutions take 40 times as long without
        patch.setenv("GENTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(evaluator, "MOST", 150)
        patch.setattr(evaluator, "fit", lambda *given: counted.append(given) or fit(*given))
        yield counted
        jax.config.update("jax_disable_most_optimizations", quick)


def untrained_params(network):
    return jax.jit(network.init)(jax.random.key(0, impl="unsafe_rbg"))  # which compiles faster


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    """The same, where classifiers are not trained at all."""
    counted = []
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    fit = lambda network, labelled: counted.append(labelled) or untrained_params(network)
    monkeypatch.setattr(evaluator, "fit", fit)
    return counted


def test_real_digits_are_good_noise_and_one_digit_are_not(fits):
    config = digits()
    real, _ = pictures(config, "test")
    evaluate = build_evaluator(config, copies())
    good, bad = evaluate({"generator": real}, jax.random.key(1)), measured(config, noise())
    one = evaluate({"generator": real[:1]}, jax.random.key(1))
    for name, bound in (("precision", 0.8), ("recall", 0.7), ("density", 0.7), ("coverage", 0.75)):
        assert good[f"fidelity/{name}"] > bound and bad[f"fidelity/{name}"] < 0.1
    assert good["fidelity/frechet"] < 3 * good["fidelity/frechet_floor"] < bad["fidelity/frechet"]
    for name in ("frechet", "kernel", "sliced"):
        assert good[f"fidelity/{name}"] < good[f"fidelity/{name}_high"] < bad[f"fidelity/{name}_low"]
    assert good["fidelity/kernel_low"] < 0.05 * bad["fidelity/kernel"] and good["fidelity/classes_kl"] < 0.3
    assert one["fidelity/recall"] == 0 and one["fidelity/precision"] == 1 and one["fidelity/coverage"] < 0.1
    assert one["fidelity/classes_kl"] == pytest.approx(np.log(10), abs=0.5)
    assert one["fidelity/frechet"] > 3 * one["fidelity/frechet_floor"]
    for each in (good, bad, one):
        assert each["fidelity/accuracy"] == good["fidelity/accuracy"] > 0.85
        assert each["fidelity/frechet_floor"] == good["fidelity/frechet_floor"] > 0
    assert len(fits) == 1  # for two evaluators, and three evaluations
    copied = measured(config, copies(), pictures(config, "valid")[0])
    assert copied["fidelity/precision"] == 1 and copied["fidelity/recall"] > good["fidelity/recall"]


def test_copies_of_train_are_told_from_other_digits():
    config = digits()
    evaluate = build_evaluator(config, copies())
    fresh, known = (
        evaluate({"generator": pictures(config, split)[0]}, jax.random.key(2)) for split in ("test", "train")
    )
    assert known["fidelity/nearest_train"] < 1e-5 and known["fidelity/nearest_train_ratio_high"] < 0.1
    assert known["fidelity/nearest_train_closer"] == 1
    assert fresh["fidelity/nearest_train_ratio"] > 0.7 and fresh["fidelity/nearest_train_closer"] < 0.15
    assert fresh["fidelity/nearest_train"] > 0.7 * fresh["fidelity/nearest_train_floor"] > 0
    assert fresh["fidelity/nearest_train_ratio_floor"] == 1


def test_a_split_is_read_the_same_in_any_chunks(monkeypatch):
    whole = pictures(digits(), "train", 300)
    monkeypatch.setattr(evaluator, "CHUNK", 7)
    for one, other in zip(whole, pictures(digits(), "train", 300), strict=True):
        assert np.array_equal(one, other)


def test_a_model_with_contexts_gets_the_classes_of_the_real_images():
    config = digits(**{"data.conditional": True})
    images, labels = pictures(config, "train")
    typical = np.stack([images[labels == label].mean(0) for label in range(10)])
    values = measured(config, answers(), typical)
    assert values["fidelity/classes_kl"] < 0.1
    assert measured(config, answers(), typical[:1].repeat(10, 0))["fidelity/classes_kl"] > 1.5


def test_each_real_image_has_a_generated_one_of_its_class(untrained, monkeypatch):
    looks = []
    monkeypatch.setattr(evaluator, "compare", lambda *given: looks.append(given[1].features) or {})
    monkeypatch.setattr(evaluator.Reference, "floors", collections.defaultdict(float))
    config = digits(**{"data.conditional": True, "data.batch_size": 16, "evaluate.examples": 50})
    labels = pictures(config, "valid", 50)[1].tolist()
    measured(config, answers(), jnp.linspace(-1, 1, 10)[:, None, None, None] * jnp.ones((8, 8, 1))[None])
    firsts = [labels.index(label) for label in labels]
    np.testing.assert_allclose(looks[0], looks[0][firsts], rtol=1e-5)
    assert len(np.unique(np.round(looks[0][firsts], 4), axis=0)) == len(set(labels)) > 5


def test_draws_do_not_depend_on_the_batch_they_are_in():
    one, other = (measured(digits(**{"data.batch_size": size}), noise()) for size in (16, 64))
    assert one == pytest.approx(other, rel=1e-4)


def test_the_classifier_is_kept_for_those_who_see_the_same_images(untrained):
    def obtained(**changed):
        labelled = evaluator.with_labels(digits(**changed))
        return evaluator.classifier_params(classifier(labelled.spec), labelled, [])

    one = obtained()
    assert_trees_close(one, obtained(seed=5, steps=7, **{"data.batch_size": 32, "evaluate.split": "test"}))
    assert len(untrained) == 1
    assert_trees_close(one, untrained_params(classifier(untrained[0].spec)), atol=1e-6)
    obtained(**{"data.levels": 2})
    assert len(untrained) == 2
    evaluator.classifier_params(classifier(untrained[0].spec), untrained[0], [3.0, 1.0])  # seen in another order
    assert len(untrained) == 3
    mixture = digits(**{"data.name": "mixture", "data.mixture.sources": (("digits", 3, 0), ("images:x", 1, 0))})
    assert evaluator.mixture_weights(mixture) == [3.0, 1.0] and evaluator.mixture_weights(digits()) == []
    first = untrained[0].train.batch(3)
    again = evaluator.with_labels(digits(seed=9, steps=3, **{"data.batch_size": 16}))
    assert all(np.array_equal(first[name], again.train.batch(3)[name]) for name in first)


def test_as_many_are_drawn_as_there_are_real_images(untrained, monkeypatch):
    sizes, measure = [], two_sample.kernel_distance
    keep = lambda real, fake: sizes.append((real.shape, fake.shape)) or measure(real, fake)
    monkeypatch.setattr(two_sample, "kernel_distance", keep)
    held_out = {split: len(pictures(digits(), split)[0]) for split in ("valid", "test")}
    assert held_out["valid"] != held_out["test"]
    for examples, split, count in ((50, "valid", 50), *((10_000, split, n) for split, n in held_out.items())):
        measured(digits(**{"evaluate.examples": examples, "evaluate.split": split}), noise())
        assert sizes == [((count, 64), (count, 64))] * 2  # the generator's, and the floor's
        sizes.clear()


def test_images_are_also_drawn_pixel_by_pixel(untrained):
    config = digits(**{"data.levels": 2, "evaluate.examples": 40})
    values = measured(config, unigram([0.5, 0.5]))
    better = {
        **dict.fromkeys(("frechet", "kernel", "sliced", "classes_kl"), "lower"),
        **dict.fromkeys(("precision", "recall", "coverage"), "higher"),
        **dict.fromkeys(("density", "nearest_train", "nearest_train_ratio", "nearest_train_closer")),
    }
    ends = "", "_low", "_high", "_floor"
    names = {f"fidelity/{name}{end}": (better[name] if not end else None, end) for name in better for end in ends}
    assert set(values) == {*names, "fidelity/accuracy"}
    for name, (way, end) in names.items():
        _, metric = declared(name, evaluator.METRICS)
        assert (metric.better, metric.level, metric.restates) == (way, end == "_floor", end in ("_low", "_high"))
    assert all(values[f"{name}_low"] <= values[name] <= values[f"{name}_high"] for name in names if name in better)


class Session:
    """Stands for a network: the mean colour of each picture, and its first pixel."""

    def __init__(self, file, providers, shape=("n", 3, 16, 12)):
        self.shape = shape

    def get_inputs(self):
        return [SimpleNamespace(name="pictures", shape=list(self.shape))]

    def run(self, names, inputs):
        pictures = inputs["pictures"]
        assert pictures.dtype == np.float32 and pictures.shape[1:] == self.shape[1:]
        return [np.concatenate([pictures.mean((2, 3)), pictures[:, :, 0, 0]], axis=1)]


@pytest.fixture
def network_file(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    (tmp_path / "some.onnx").write_bytes(b"")
    return tmp_path / "some.onnx"


def test_a_network_sees_pictures_of_its_size_in_three_colours_by_its_own_scale(network_file):
    grey = np.linspace(-1, 1, 5, dtype=np.float32)[:, None, None, None] * np.ones((8, 8, 1), np.float32)
    np.testing.assert_allclose(Onnx(network_file, False)(grey), np.linspace(-1, 1, 5)[:, None] * np.ones(6), atol=1e-6)
    red, green, blue = Onnx(network_file, True)(grey)[:, :3].T
    assert red[0] == pytest.approx(-0.485 / 0.229, abs=1e-4) and blue[-1] == pytest.approx(0.594 / 0.225, abs=1e-4)
    assert green[2] == pytest.approx(0.044 / 0.224, abs=1e-4)
    colours = np.random.default_rng(0).uniform(-1, 1, size=(2, 32, 24, 3)).astype(np.float32)
    np.testing.assert_allclose(Onnx(network_file, False)(colours)[:, :3], colours.mean((1, 2)), atol=0.02)


def test_numbers_are_called_fid_where_the_network_is_said_to_be_inception(untrained, network_file):
    options = {"evaluate.examples": 40, "evaluate.fidelity.features": str(network_file)}
    plain, *named = (
        measured(digits(**options, **{"evaluate.fidelity.network": name}), noise())
        for name in ("", "inception", "dinov2")
    )
    assert named[0]["fidelity/fid"] == named[0]["fidelity/frechet"] == plain["fidelity/frechet"]
    assert named[0]["fidelity/kid"] == named[0]["fidelity/kernel"]
    assert named[1]["fidelity/fd_dinov2"] == named[1]["fidelity/frechet"] > 1.1 * plain["fidelity/frechet"]
    assert not {"fidelity/fid", "fidelity/kid", "fidelity/fd_dinov2"} & set(plain)
    assert declared("fidelity/fid", evaluator.METRICS)[1].restates
    assert plain["fidelity/frechet"] != measured(digits(**{"evaluate.examples": 40}), noise())["fidelity/frechet"]


def test_a_folder_of_dinov2_gives_the_features(untrained, tmp_path):
    options = {"evaluate.examples": 40, "evaluate.fidelity.features": str(dinov2_folder(tmp_path / "dinov2"))}
    plain, named = (
        measured(digits(**options, **{"evaluate.fidelity.network": name}), noise()) for name in ("", "dinov2")
    )
    assert named["fidelity/fd_dinov2"] == named["fidelity/frechet"] == plain["fidelity/frechet"]
    assert "fidelity/fd_dinov2" not in plain
    network = open_network(tmp_path / "dinov2", "dinov2")
    real, train = (network(pictures(digits(), split, 40)[0]) for split in ("valid", "train"))
    assert plain["fidelity/frechet_floor"] == pytest.approx(manifolds.frechet(real, train), rel=1e-3)
    with pytest.raises(ConfigError, match="it is a folder: expected DINOv2"):
        build_evaluator(digits(**options, **{"evaluate.fidelity.network": "inception"}), noise())


def test_a_network_that_cannot_be_asked_is_refused_in_one_line(network_file, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate.fidelity.features='.*none.onnx': there is no such file"):
        Onnx(tmp_path / "none.onnx", False)
    for shape in (("n", 3, "h", "w"), (1, 3, 8, 8), ("n", 8, 8, 3), ("n", 3)):
        session = lambda file, providers, shape=shape: Session(file, providers, shape)
        monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=session))
        with pytest.raises(ConfigError, match=r"expected an input of \(n, 3, height, width\), n free, not"):
            Onnx(network_file, False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="needs the package onnxruntime: pip install onnxruntime"):
        Onnx(network_file, False)
    config = digits(**{"evaluate.evaluators": ("fidelity",), "evaluate.fidelity.network": "inception"})
    with pytest.raises(ConfigError, match=r"fidelity.network='inception': expected a network in features"):
        validate(config)


@pytest.mark.slow
def test_a_network_of_onnx_is_read(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    inputs = helper.make_tensor_value_info("pictures", kind, ["n", 3, 10, 10])
    outputs = helper.make_tensor_value_info("features", kind, ["n", 3, 1, 1])
    node = helper.make_node("GlobalAveragePool", ["pictures"], ["features"])
    graph = helper.make_graph([node], "mean", [inputs], [outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "mean.onnx")
    grey = np.linspace(-1, 1, 7, dtype=np.float32)[:, None, None, None] * np.ones((8, 8, 1), np.float32)
    features = Onnx(tmp_path / "mean.onnx", False)(grey)
    np.testing.assert_allclose(features, np.linspace(-1, 1, 7)[:, None] * np.ones(3), atol=1e-6)
    (tmp_path / "broken.onnx").write_bytes(b"none")
    with pytest.raises(ConfigError, match="not a network that onnxruntime reads"):
        Onnx(tmp_path / "broken.onnx", False)


def saved(root, classes, each):
    """A folder of pictures, one colour a class."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.new("L", (4, 4), 50 * number).save(root / name / f"{i:03}.png")
    return f"images:{root}"


def test_of_a_split_sorted_by_class_all_classes_are_taken(untrained, tmp_path):
    where = saved(tmp_path / "sorted", "abc", 60)
    images, labels = pictures(digits(**{"data.name": where}), "train", 40)
    assert set(labels.tolist()) == {0, 1, 2} and images.shape == (40, 4, 4, 1)
    np.testing.assert_allclose(images[:, 0, 0, 0], 100 * labels / 255 - 1, atol=1e-6)  # each with its own class
    assert len(np.unique(pictures(digits(), "train", 300)[0], axis=0)) == 300  # and none twice


def test_what_it_cannot_measure_is_refused_before_the_run(untrained, tmp_path):
    for name in (saved(tmp_path / "loose", [""], 60), saved(tmp_path / "single", "a", 60)):
        with pytest.raises(ConfigError, match=r"'fidelity' learns its features from class labels, and images:.* none"):
            build_evaluator(digits(**{"data.name": name}), noise())
    with pytest.raises(ConfigError, match="'fidelity' is for images, and the data are points"):
        build_evaluator(digits(**{"data.name": "world:ring"}), noise())
    with pytest.raises(ConfigError, match="needs more than 5 images, not 5"):
        build_evaluator(digits(**{"evaluate.examples": 5}), noise())
    assert not untrained


@pytest.mark.parametrize("conditional", [False, True])
def test_samples_that_are_drawn_whole_are_shown(conditional):
    count = 20
    config = digits(**{"data.conditional": conditional, "sample.count": count})
    data = build(config, None)
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size)
    grey = jnp.linspace(-1, 1, 10)[:, None, None, None] * jnp.ones((8, 8, 1))[None]
    model = answers() if conditional else copies()
    shown = samples.build(config, objective_of(model), data, mesh)({"generator": grey}, jax.random.key(0))
    assert set(shown) == {"samples"} and isinstance(shown["samples"], Images)
    images, levels = shown["samples"].images, np.round(np.arange(10) * 255 / 9)
    assert images.shape[1:] == (8, 8, 1) and images.dtype == np.uint8
    if conditional:  # each class in turn, whatever the order of the split
        assert images[:, 3, 3, 0].tolist() == [levels[number % 10] for number in range(count)]
    else:
        assert set(images.ravel().tolist()) <= set(levels.tolist()) and len(np.unique(images)) > 4
        assert len(images) == count
