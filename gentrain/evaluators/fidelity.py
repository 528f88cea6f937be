"""Are generated images good, and are there all kinds of them? In the features of a classifier trained on the data."""

from collections.abc import Iterable, Iterator
from functools import cache, cached_property
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
from gentrain.datasets import store
from gentrain.datasets.build import Data, Split
from gentrain.datasets.spec import ImageSpec
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator, make_draw
from gentrain.metrics import manifolds
from gentrain.models.base import Params, SequenceModel
from gentrain.models.classifier import Classifier, classifier
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "fidelity/precision": Metric("share", "higher", "generated images among the real ones (k = 3)"),
    "fidelity/recall": Metric("share", "higher", "real images among the generated ones (k = 3)"),
    "fidelity/density": Metric("ratio", None, "real neighbourhoods a generated image lies in (k = 5)"),
    "fidelity/coverage": Metric("share", "higher", "real neighbourhoods with a generated image in them (k = 5)"),
    "fidelity/frechet": Metric("squared distance", "lower", "of Gaussians fitted to the features"),
    "fidelity/frechet_floor": Metric("squared distance", None, "the same for training images", level=True),
    "fidelity/classes_kl": Metric("nats", "lower", "KL of the generated classes' histogram from the real one"),
    "fidelity/accuracy": Metric("share", None, "real images whose class the classifier sees"),
}

RECIPE = 1  # of the classifier; part of its key in the cache: raise it when how it is trained or built changes
BATCH, EPOCHS = 64, 5  # images a step, and passes over train
FEWEST, MOST = 600, 4000  # steps of training, whatever the size of train
LEARNING_RATE = 1e-3
NEAREST = 3, 5  # neighbours: of precision and recall, of density and coverage


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """The numbers of METRICS from evaluate.examples generated images and as many of the split (of both as many as it
    has, if fewer), as in metrics.manifolds; of real images as a classifier sees them, not as they are labelled.

    Features are the 64 of a small convolutional classifier that is trained here, at the first call, on the data's own
    labels, and kept in the cache. It is not an Inception network and the distance is not FID: numbers compare within
    one data set, one recipe and one number of images only. What is left for a perfect generator is frechet_floor, the
    distance between as many images of train and those of the split. A model with contexts gets the classes of the real
    images. Raises ConfigError where the data are not images with class labels, and for too few of them.
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

    @cache
    def reference() -> Reference:
        """What does not depend on the generator."""
        images, labels = choose_images(labelled, split, count)
        real = eyes.look(images, count)
        train = labelled.split("train")
        floor_count = min(count, count_images(labelled, train))
        train_images, _ = choose_images(labelled, train, floor_count)
        floor = manifolds.frechet(real.features[:floor_count], eyes.look(train_images, floor_count).features)
        return Reference(real, labels, {"frechet_floor": floor, "accuracy": float((real.classes == labels).mean())})

    def generate(params, key, labels) -> Iterator[np.ndarray]:
        """Batches of generated images, a few more than `count`."""
        for start in range(0, count, size):
            rows = (start + sharding.local_rows(mesh, size)).astype(np.int32)
            batch = {"row": rows} | ({"context": labels[rows % count, None]} if spec.context_vocab else {})
            batch = sharding.put(batch, mesh, size)
            samples = draw(params, key, batch["row"], batch.get("context"))
            yield np.asarray(spec.pixels(samples.tokens) if isinstance(model, SequenceModel) else samples)

    def evaluate(params, key):
        real, labels, constants = reference()
        fake = eyes.look_at_batches(generate(params["generator"], key, labels), count)
        values = compare(real, fake, labelled.spec.context_vocab) | constants
        return {f"fidelity/{name}": value for name, value in values.items()}

    return evaluate


class Look(NamedTuple):
    """What the classifier makes of images: features (n, 64) float64, and the classes that it takes them for (n,)."""

    features: np.ndarray
    classes: np.ndarray


class Reference(NamedTuple):
    """The real images: as they are seen, their labels (n,), and the numbers that depend on nothing else."""

    real: Look
    labels: np.ndarray
    constants: dict[str, float]


class Eyes:
    """A classifier that is trained, or found in the cache, when it is first looked through."""

    def __init__(self, config: ConfigDict, labelled: Data):
        self.size = config.data.batch_size
        self.network = classifier(image_spec(labelled))
        self.classify = jax.jit(self.network.apply)
        self.labelled, self.weights = labelled, mixture_weights(config)

    @cached_property
    def params(self) -> Params:
        return obtain_params(self.network, self.labelled, self.weights)

    def look(self, images: np.ndarray, count: int) -> Look:
        """Images (n, height, width, channels), in batches of the size in which generated ones come.

        So one program looks at both; the last batch is filled up.
        """
        starts = range(0, len(images), self.size)
        batches = (images[np.arange(start, start + self.size) % len(images)] for start in starts)
        return self.look_at_batches(batches, count)

    def look_at_batches(self, batches: Iterable[np.ndarray], count: int) -> Look:
        """The first `count` images of the batches."""
        parts = [jax.device_get(self.classify(self.params, batch)) for batch in batches]
        features, logits = (np.concatenate(part)[:count] for part in zip(*parts, strict=True))
        return Look(features.astype(np.float64), logits.argmax(-1))


def compare(real: Look, fake: Look, classes: int) -> dict[str, float]:
    """The numbers that depend on the generator."""
    shares = (np.bincount(look.classes, minlength=classes) / len(look.classes) for look in (fake, real))
    return {
        **manifolds.precision_recall(real.features, fake.features, NEAREST[0])._asdict(),
        **manifolds.density_coverage(real.features, fake.features, NEAREST[1])._asdict(),
        "frechet": manifolds.frechet(real.features, fake.features),
        "classes_kl": float(divergences.kl(*shares)),
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


def choose_images(labelled: Data, split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, height, width, channels) and their classes (count,): always the same ones of a split.

    Drawn without replacement, since a split may be sorted by class.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(count_images(labelled, split))[:count])
    tokens, labels = [], []
    for number in np.unique(chosen // BATCH).tolist():
        batch, rows = split.batch(number), chosen[chosen // BATCH == number] % BATCH
        tokens.append(batch["tokens"][rows])
        labels.append(batch["context"][rows, 0])
    return np.asarray(image_spec(labelled).pixels(np.concatenate(tokens))), np.concatenate(labels)


def mixture_weights(config: ConfigDict) -> list[float]:
    """The weights of a mixture's sources, which say in what order the classifier sees them; none of a single source."""
    return [float(source[1]) for source in config.data.mixture.sources] if config.data.name == "mixture" else []


def obtain_params(network: Classifier, labelled: Data, weights: list[float]) -> Params:
    """The parameters of the classifier of these data: found in the cache, or fitted and put there."""

    def make(folder: Path) -> None:
        np.savez(folder / "classifier.npz", *jax.device_get(jax.tree.leaves(fit(network, labelled))))

    key = ["classifier", RECIPE, list(labelled.summary["digests"].items()), *weights]
    structure = jax.tree.structure(jax.eval_shape(network.init, jax.random.key(0)))
    with np.load(store.cached(key, make) / "classifier.npz") as arrays:
        return jax.tree.unflatten(structure, [arrays[name] for name in arrays.files])


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
