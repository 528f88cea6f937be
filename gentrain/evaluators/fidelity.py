"""Are generated images good, and are there all kinds of them? In the features of a classifier trained on the data."""

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import divergences, sharding
from gentrain.datasets import build as building
from gentrain.datasets.build import Data, Split
from gentrain.datasets.spec import ImageSpec
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator, make_draw, name_values, obtain_params, with_company
from gentrain.evaluators.network import open_network
from gentrain.metrics import intervals, manifolds, two_sample
from gentrain.metrics.intervals import Interval
from gentrain.models.base import Params, SequenceModel
from gentrain.models.classifier import Classifier, classifier
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

NUMBERS = {
    "precision": Metric("share", "higher", "generated images among the real ones (k = 3)"),
    "recall": Metric("share", "higher", "real images among the generated ones (k = 3)"),
    "density": Metric("ratio", None, "real neighbourhoods a generated image lies in (k = 5)"),
    "coverage": Metric("share", "higher", "real neighbourhoods with a generated image in them (k = 5)"),
    "frechet": Metric("squared distance", "lower", "of Gaussians fitted to the features"),
    "kernel": Metric("squared distance", "lower", "MMD of a cubic kernel of the features, unbiased: may be negative"),
    "sliced": Metric("squared distance", "lower", "Wasserstein, in the mean over directions of the features"),
    "classes_kl": Metric("nats", "lower", "KL of the generated classes' histogram from the real one"),
    "nearest_train": Metric("distance", None, "to the nearest image of train"),
    "nearest_train_ratio": Metric("ratio", None, "the same by that of held-out images: below 1 where train is copied"),
    "nearest_train_closer": Metric("share", None, "images closer to train than all but 1 % of held-out ones"),
}
ACCURACY = Metric("share", None, "real images whose class the classifier sees", level=True)
# What numbers are called where the features are those that others use too: by network.
NAMED = {"": {}, "inception": {"fid": "frechet", "kid": "kernel"}, "dinov2": {"fd_dinov2": "frechet"}}
METRICS = with_company("fidelity", NUMBERS, "of real images") | {"fidelity/accuracy": ACCURACY}
METRICS |= {
    f"fidelity/{name}": Metric(NUMBERS[number].unit, None, f"{number}, in the features of {network}", restates=True)
    for network, names in NAMED.items()
    for name, number in names.items()
}

RECIPE = 1  # of the classifier; part of its key in the cache: raise it when how it is trained or built changes
BATCH, EPOCHS = 64, 5  # images a step, and passes over train
FEWEST, MOST = 600, 4000  # steps of training, whatever the size of train
LEARNING_RATE = 1e-3
NEAREST = 3, 5  # neighbours: of precision and recall, of density and coverage
MOST_TRAIN = 50_000  # images of train among which the nearest is looked for
CHUNK = 2048  # images of a split that are held at once


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """fidelity/…, the numbers of NUMBERS, from evaluate.examples generated images and as many of the split (of both as
    many as it has, if fewer); with each its 95 % interval, …_low and …_high, and its …_floor. Of real images as a
    classifier sees them, not as they are labelled.

    The interval is about the mean over so many images of both kinds. The floor is what a perfect generator gets: images
    of train, so many, in place of the generated ones, and with it the bias that numbers of few images have; held-out
    images where train would be compared with itself. Compare at one number of images only.

    Features are the 64 of a small convolutional classifier that is trained here, at the first call, on the data's own
    labels, and kept in the cache. It is not an Inception network, so `frechet` is not FID, nor `kernel` KID: numbers
    compare within one data set and one recipe. Those of a given network are asked for by evaluate.fidelity.features
    (see evaluators.network); of 2,048 the interval of `frechet` takes two minutes, and classes are the classifier's all
    the same. A model with contexts gets the classes of the real images. Raises ConfigError where the data are not
    images with class labels, and for too few of them.
    """
    spec, model, size = data.spec, objective.model, config.data.batch_size
    if not isinstance(spec, ImageSpec):
        raise ConfigError(f"evaluator 'fidelity' is for images, and the data are {spec.kind}")
    labelled = with_labels(config)
    split = labelled.split(config.evaluate.split)
    count = min(config.evaluate.examples, count_images(labelled, split))
    if count <= max(NEAREST):
        raise ConfigError(f"evaluator 'fidelity' needs more than {max(NEAREST)} images, not {count}: evaluate.examples")
    eyes, draw = Eyes(config, labelled), make_draw(model, mesh, spec.length)
    reference = Reference(labelled, split, count, eyes)
    named = NAMED[config.evaluate.fidelity.network]

    def generate(params, key, labels) -> Iterator[np.ndarray]:
        """Batches of generated images, a few more than `count`."""
        for start in range(0, count, size):
            rows = (start + sharding.local_rows(mesh, size)).astype(np.int32)
            batch = {"row": rows} | ({"context": labels[rows % count, None]} if spec.context_vocab else {})
            batch = sharding.put(batch, mesh, size)
            samples = draw(params, key, batch["row"], batch.get("context"))
            yield np.asarray(spec.pixels(samples.tokens) if isinstance(model, SequenceModel) else samples)

    def evaluate(params, key):
        labels = reference.labels
        fake = eyes.look_at_batches(generate(params["generator"], key, labels), count)
        found = reference.compare(fake, int(jax.random.bits(key)))
        values = name_values("fidelity", found, reference.floors) | {"fidelity/accuracy": reference.accuracy}
        return values | {f"fidelity/{name}": values[f"fidelity/{number}"] for name, number in named.items()}

    return evaluate


class Look(NamedTuple):
    """What the classifier makes of images: features (n, d) float64, and the classes that it takes them for (n,)."""

    features: np.ndarray
    classes: np.ndarray


class Reference:
    """What generated images are compared with, which is the same at every step and worked out when it is needed."""

    def __init__(self, labelled: Data, split: Split, count: int, eyes: "Eyes"):
        self.labelled, self.split, self.count, self.eyes = labelled, split, count, eyes

    @cached_property
    def labels(self) -> np.ndarray:
        """Of the real images, (count,)."""
        chosen = choose_images(self.labelled, self.split, self.count)
        return np.concatenate([labels for _, labels in read_images(self.labelled, self.split, chosen)])

    @cached_property
    def real(self) -> Look:
        return self.eyes.look_at_split(self.split, self.count)

    @cached_property
    def train(self) -> np.ndarray:
        """Features of train, of as many images as the nearest is looked for among."""
        return self.eyes.look_at_split(self.labelled.split("train"), MOST_TRAIN).features

    @cached_property
    def real_distances(self) -> np.ndarray:
        return manifolds.nearest(self.real.features, self.train)

    @property
    def accuracy(self) -> float:
        return float((self.real.classes == self.labels).mean())

    @cached_property
    def floors(self) -> dict[str, float]:
        """Of real images, by the names of NUMBERS."""
        train = self.eyes.look_at_split(self.labelled.split("train"), self.count)
        found = compare(self.real, train, self.labelled.spec.context_vocab, 0)
        return {name: float(interval.value) for name, interval in found.items()} | {
            "nearest_train": float(self.real_distances.mean()),
            "nearest_train_ratio": 1.0,
            "nearest_train_closer": max(manifolds.CLOSEST, 1 / (1 + self.count)),
        }

    def compare(self, fake: Look, seed: int) -> dict[str, Interval]:
        """The numbers of generated images, by the names of NUMBERS."""
        distances = manifolds.nearest(fake.features, self.train)
        ratio, closer = manifolds.closeness(distances, self.real_distances)
        return compare(self.real, fake, self.labelled.spec.context_vocab, seed) | {
            "nearest_train": intervals.student(distances),
            "nearest_train_ratio": ratio,
            "nearest_train_closer": closer,
        }


class Eyes:
    """A classifier that is trained, or found in the cache, when it is first looked through. Features are those of the
    network in its place, where one is given."""

    def __init__(self, config: ConfigDict, labelled: Data):
        self.size = config.data.batch_size
        self.network = classifier(image_spec(labelled))
        self.classify = sharding.by_own_rows(self.network.apply, math.gcd(self.size, jax.local_device_count()))
        self.labelled, self.weights = labelled, mixture_weights(config)
        options = config.evaluate.fidelity
        given = Path(options.features).expanduser()
        self.features = open_network(given, options.network) if options.features else None

    @cached_property
    def params(self) -> Params:
        return classifier_params(self.network, self.labelled, self.weights)

    def look_at_split(self, split: Split, count: int) -> Look:
        """So many images of a split, or all if it has fewer, in batches of the size in which generated ones come.

        So one program looks at both; the last batch of a chunk is filled up.
        """
        chosen = choose_images(self.labelled, split, count)
        looks = [self.look(images) for images, _ in read_images(self.labelled, split, chosen)]
        return Look(*map(np.concatenate, zip(*looks, strict=True)))

    def look(self, images: np.ndarray) -> Look:
        starts = range(0, len(images), self.size)
        batches = (images[np.arange(start, start + self.size) % len(images)] for start in starts)
        return self.look_at_batches(batches, len(images))

    def look_at_batches(self, batches: Iterable[np.ndarray], count: int) -> Look:
        """The first `count` images of the batches."""
        parts = []
        for batch in batches:
            features, logits = jax.device_get(self.classify(self.params, batch))
            parts.append((self.features(batch) if self.features else features, logits.argmax(-1)))
        features, classes = (np.concatenate(part)[:count] for part in zip(*parts, strict=True))
        return Look(features.astype(np.float64), classes)


def compare(real: Look, fake: Look, classes: int, seed: int) -> dict[str, Interval]:
    """The numbers that depend on the law of generated images alone; the seed is that of the directions of `sliced`."""

    def frechet(chosen: np.ndarray, ours: np.ndarray) -> float:
        return manifolds.frechet(real.features[chosen], fake.features[ours])

    def classes_kl(chosen: np.ndarray, ours: np.ndarray) -> float:
        looks = fake.classes[ours], real.classes[chosen]
        return float(divergences.kl(*(np.bincount(look, minlength=classes) / len(look) for look in looks)))

    pair = len(real.features), len(fake.features)
    return {
        **manifolds.compare(real.features, fake.features, *NEAREST)._asdict(),
        "frechet": intervals.clip(intervals.jackknife_pair(frechet, *pair), 0),
        "kernel": two_sample.kernel_distance(real.features, fake.features),
        "sliced": intervals.clip(two_sample.sliced_wasserstein(real.features, fake.features, seed), 0),
        "classes_kl": intervals.clip(intervals.jackknife_pair(classes_kl, *pair), 0),
    }


def with_labels(config: ConfigDict) -> Data:
    """The config's images with their classes, in an order that is the same in all runs. Raises ConfigError without."""
    copy = config.copy_and_resolve_references()
    copy.seed, copy.steps, copy.data.batch_size, copy.data.conditional = 0, 1, BATCH, True
    message = f"evaluator 'fidelity' learns its features from class labels, and {copy.data.name} has none"
    try:
        labelled = building.build(copy, None)
    except ConfigError as error:
        raise ConfigError(message) from error
    if labelled.spec.context_vocab < 2:
        raise ConfigError(message)
    return labelled


def image_spec(labelled: Data) -> ImageSpec:
    """The spec of images, typed."""
    assert isinstance(labelled.spec, ImageSpec)
    return labelled.spec


def count_images(labelled: Data, split: Split) -> int:
    """How many images a split has."""
    return split.tokens // labelled.spec.length


def choose_images(labelled: Data, split: Split, count: int) -> np.ndarray:
    """Numbers of so many images of a split, or of all if it has fewer, sorted: always the same ones.

    Drawn without replacement, since a split may be sorted by class.
    """
    return np.sort(np.random.default_rng(0).permutation(count_images(labelled, split))[:count])


def read_images(labelled: Data, split: Split, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Those of the numbers: images (n, height, width, channels) and their classes (n,), a chunk at a time."""
    for start in range(0, len(chosen), CHUNK):
        batch = split.take(chosen[start : start + CHUNK])
        yield np.asarray(image_spec(labelled).pixels(batch["tokens"])), batch["context"][:, 0]


def mixture_weights(config: ConfigDict) -> list[float]:
    """The weights of a mixture's sources, which say in what order the classifier sees them; none of a single source."""
    return [float(source[1]) for source in config.data.mixture.sources] if config.data.name == "mixture" else []


def classifier_params(network: Classifier, labelled: Data, weights: list[float]) -> Params:
    """The parameters of the classifier of these data: found in the cache, or fitted and put there."""
    key = ["classifier", RECIPE, list(labelled.summary["digests"].items()), *weights]
    return obtain_params(key, network.init, lambda: fit(network, labelled))


def fit(network: Classifier, labelled: Data) -> Params:
    """Minimises cross-entropy on train by Adam: about 5 passes, but 600 steps at least and 4,000 at most."""
    steps = min(max(FEWEST, EPOCHS * labelled.summary["examples"] // BATCH), MOST)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    spec = image_spec(labelled)

    def loss(params, batch):
        logits = network.apply(params, spec.pixels(batch["tokens"]))[1]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["context"][:, 0]))

    @jax.jit
    def step(params, state, batch):
        update, state = optimizer.update(jax.grad(loss)(params, batch), state)
        return optax.apply_updates(params, update), state

    params = jax.jit(network.init)(jax.random.key(0))
    state = optimizer.init(params)
    for number in range(steps):
        params, state = step(params, state, labelled.train.batch(number))
    return params
