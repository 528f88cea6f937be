"""Are generated images good, and are there all kinds of them? In the features of a classifier trained on the data."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from gentrain import divergences, sharding
from gentrain.datasets import build as building
from gentrain.datasets import store
from gentrain.datasets.build import Data, Split
from gentrain.datasets.spec import ImageSpec
from gentrain.errors import ConfigError
from gentrain.evaluators import manifolds
from gentrain.evaluators.base import make_draw
from gentrain.models.base import Params, SequenceModel
from gentrain.models.classifier import Classifier, classifier
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "fidelity/precision": Metric("share", "higher", "generated images among the real ones (k = 3)"),
    "fidelity/recall": Metric("share", "higher", "real images among the generated ones (k = 3)"),
    "fidelity/density": Metric("ratio", "higher", "real neighbourhoods a generated image lies in (k = 5)"),
    "fidelity/coverage": Metric("share", "higher", "real neighbourhoods with a generated image in them (k = 5)"),
    "fidelity/frechet": Metric("squared distance", "lower", "of Gaussians fitted to the features"),
    "fidelity/frechet_floor": Metric("squared distance", None, "the same for training images", level=True),
    "fidelity/classes_kl": Metric("nats", "lower", "KL of the generated classes' histogram from the real one"),
    "fidelity/accuracy": Metric("share", None, "real images whose class the classifier sees"),
}

RECIPE = 1  # of the classifier; part of its key in the cache: raise it when how it is trained or built changes
BATCH, EPOCHS, FEWEST, MOST = 64, 5, 600, 4000  # images a step, passes over train, and bounds on the steps
LEARNING_RATE = 1e-3
NEAREST = 3, 5  # neighbours: of precision and recall, of density and coverage


def build(config: ConfigDict, objective: Objective, data: Data, mesh):
    """From evaluate.examples generated images and as many of the split (of both as many as it has, if fewer):

    fidelity/precision and recall (k = 3), fidelity/density and coverage (k = 5), fidelity/frechet, as in
    evaluators.manifolds; fidelity/frechet_floor, the same distance between as many images of train and those of the split:
    what is left for a perfect generator; fidelity/classes_kl, KL of the histogram of generated images' classes from
    that of real ones, both as the classifier sees them, nats; fidelity/accuracy, the share of the real images whose
    class it sees.

    Features are the 64 of a small convolutional classifier that is trained here, at the first call, on the data's own
    labels, and kept in the cache. It is not an Inception network and the distance is not FID: numbers compare within
    one data set, one recipe and one number of images only. A model with contexts gets the classes of the real images.
    Raises ConfigError where the data are not images with class labels.
    """
    spec, model = data.spec, objective.model
    if not isinstance(spec, ImageSpec):
        raise ConfigError(f"evaluator 'fidelity' is for images, and the data are {spec.kind}")
    labelled = with_labels(config)
    network, split, size = classifier(labelled.spec), labelled.split(config.evaluate.split), config.data.batch_size
    count = min(config.evaluate.examples, images(split, labelled))
    if count <= max(NEAREST):
        raise ConfigError(f"evaluator 'fidelity' needs more than {max(NEAREST)} images, not {count}: evaluate.examples")
    classify, draw = jax.jit(network.apply), make_draw(model, mesh, spec.length)

    def features(params, batches, count):
        """Of the first pictures: features (count, 64) float64, and the classes they are taken for (count,)."""
        parts, logits = zip(*(jax.device_get(classify(params, batch)) for batch in batches), strict=True)
        return np.concatenate(parts)[:count].astype(np.float64), np.concatenate(logits)[:count].argmax(-1)

    def in_batches(pictures):
        """All of one shape, so that one program looks at them and at generated ones; the last is filled up."""
        for start in range(0, len(pictures), size):
            yield pictures[np.arange(start, start + size) % len(pictures)]

    @cache
    def reference():
        """What does not depend on the generator."""
        params = trained(network, labelled)
        pictures, labels = some(labelled, split, count)
        real, taken = features(params, in_batches(pictures), count)
        train = labelled.split("train")
        same = min(count, images(train, labelled))
        of_train, _ = features(params, in_batches(some(labelled, train, same)[0]), same)
        floor = manifolds.frechet(real[:same], of_train)
        constant = {"frechet_floor": floor, "accuracy": float((taken == labels).mean())}
        return params, real, taken, labels, constant

    def generated(params, key, labels):
        for start in range(0, count, size):
            row = (start + sharding.local_rows(mesh, size)).astype(np.int32)
            batch = {"row": row} | ({"context": labels[row % count, None]} if spec.context_vocab else {})
            batch = sharding.put(batch, mesh, size)
            drawn = draw(params, key, batch["row"], batch.get("context"))
            yield np.asarray(spec.pixels(drawn.tokens) if isinstance(model, SequenceModel) else drawn)

    def evaluate(params, key):
        weights, real, taken, labels, constant = reference()
        fake, classes = features(weights, generated(params["generator"], key, labels), count)
        shares = (np.bincount(group, minlength=labelled.spec.context_vocab) / count for group in (classes, taken))
        measured = manifolds.precision_recall(real, fake, NEAREST[0])._asdict()
        measured |= manifolds.density_coverage(real, fake, NEAREST[1])._asdict()
        measured |= {"frechet": manifolds.frechet(real, fake), "classes_kl": float(divergences.kl(*shares))}
        return {f"fidelity/{name}": value for name, value in (measured | constant).items()}

    return evaluate


def with_labels(config: ConfigDict) -> Data:
    """The config's images with their classes, in an order that is the same in all runs."""
    copy = config.copy_and_resolve_references()
    copy.seed, copy.steps, copy.data.batch_size, copy.data.conditional = 0, 1, BATCH, True
    labelled = building.build(copy, None)
    if labelled.spec.context_vocab < 2:
        raise ConfigError(f"evaluator 'fidelity' learns its features from class labels; {copy.data.name} has one class")
    return labelled


def images(split: Split, labelled: Data) -> int:
    return split.tokens // labelled.spec.length


def some(labelled: Data, split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, height, width, channels) and their classes (count,): always the same ones of a split.

    Drawn without replacement, since a split may be sorted by class.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(images(split, labelled))[:count])
    tokens, labels = [], []
    for number in np.unique(chosen // BATCH).tolist():
        batch, rows = split.batch(number), chosen[chosen // BATCH == number] % BATCH
        tokens.append(batch["tokens"][rows])
        labels.append(batch["context"][rows, 0])
    return np.asarray(labelled.spec.pixels(np.concatenate(tokens))), np.concatenate(labels)


def trained(network: Classifier, labelled: Data) -> Params:
    """The parameters of the classifier of these data: found in the cache, or put there."""

    def make(folder: Path) -> None:
        np.savez(folder / "classifier.npz", *jax.device_get(jax.tree.leaves(fit(network, labelled))))

    structure = jax.tree.structure(jax.eval_shape(network.init, jax.random.key(0)))
    with np.load(store.cached(["classifier", RECIPE, labelled.summary["digest"]], make) / "classifier.npz") as found:
        return jax.tree.unflatten(structure, [found[name] for name in found.files])


def fit(network: Classifier, labelled: Data) -> Params:
    """Minimises cross-entropy on train by Adam: about 5 passes, but 600 steps at least and 4,000 at most."""
    steps = min(max(FEWEST, EPOCHS * labelled.summary["examples"] // BATCH), MOST)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))

    def loss(params, batch):
        logits = network.apply(params, labelled.spec.pixels(batch["tokens"]))[1]
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
