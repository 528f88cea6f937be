"""Are generated images good, and are there all kinds of them? In the features of a classifier trained on the data."""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from gentrain import data as datasets
from gentrain import decode, divergences, fidelity, models, sharding
from gentrain.data import Data, Split, corpus
from gentrain.errors import ConfigError
from gentrain.models.classifier import Classifier, classifier

RECIPE = 1  # of the classifier; part of its key in the cache: raise it when how it is trained or built changes
BATCH, EPOCHS, FEWEST, MOST = 64, 5, 600, 4000  # images a step, passes over train, and bounds on the steps
LEARNING_RATE = 1e-3
NEAREST = 3, 5  # neighbours: of precision and recall, of density and coverage


def build(config: ConfigDict, model: models.SequenceModel | models.Sampler, data: Data, mesh):
    """From evaluate.examples generated images and as many of the split (of both as many as it has, if fewer):

    fidelity/precision and recall (k = 3), fidelity/density and coverage (k = 5), fidelity/frechet, as in
    gentrain.fidelity; fidelity/frechet_floor, the same distance between as many images of train and those of the split:
    what is left for a perfect generator; fidelity/classes_kl, KL of the histogram of generated images' classes from
    that of real ones, both as the classifier sees them, nats; fidelity/accuracy, the share of the real images whose
    class it sees.

    Features are the 64 of a small convolutional classifier that is trained here, at the first call, on the data's own
    labels, and kept in the cache. It is not an Inception network and the distance is not FID: numbers compare within
    one data set, one recipe and one number of images only. A model with contexts gets the classes of the real images.
    Raises ConfigError where the data are not images with class labels.
    """
    if data.spec.kind != "image":
        raise ConfigError(f"evaluator 'fidelity' is for images, and this data is {data.spec.kind}")
    labelled, key = with_labels(config)
    network, split, size = classifier(labelled.spec), labelled.split(config.evaluate.split), config.data.batch_size
    count = min(config.evaluate.examples, images(split, labelled))
    if count <= max(NEAREST):
        raise ConfigError(f"evaluator 'fidelity' needs more than {max(NEAREST)} images, not {count}: evaluate.examples")
    look = jax.jit(network.apply)

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def draw(params, key, batch):
        keys = models.example_keys(key, batch["row"])
        return decode.pictures(model, params, keys, data.spec, batch.get("context"))

    def features(params, batches, count):
        """Of the first pictures: features (count, 64) float64, and the classes they are taken for (count,)."""
        seen, logits = zip(*(jax.device_get(look(params, batch)) for batch in batches), strict=True)
        return np.concatenate(seen)[:count].astype(np.float64), np.concatenate(logits)[:count].argmax(-1)

    def in_batches(pictures):
        """All of one shape, so that one program looks at them and at generated ones; the last is filled up."""
        for start in range(0, len(pictures), size):
            yield pictures[np.arange(start, start + size) % len(pictures)]

    @cache
    def reference():
        """What does not depend on the generator."""
        params = trained(network, labelled, key)
        pictures, labels = some(labelled, split, count)
        real, taken = features(params, in_batches(pictures), count)
        train = labelled.split("train")
        same = min(count, images(train, labelled))
        found, _ = features(params, in_batches(some(labelled, train, same)[0]), same)
        constant = {"frechet_floor": fidelity.frechet(real[:same], found), "accuracy": float((taken == labels).mean())}
        return params, real, taken, labels, constant

    def generated(params, key, labels):
        for start in range(0, count, size):
            row = (start + sharding.local_rows(mesh, size)).astype(np.int32)
            batch = {"row": row} | ({"context": labels[row % count, None]} if data.spec.context_vocab else {})
            yield np.asarray(draw(params, key, sharding.put(batch, mesh, size)))

    def evaluate(params, key):
        eyes, real, taken, labels, constant = reference()
        fake, classes = features(eyes, generated(params["generator"], key, labels), count)
        shares = (np.bincount(found, minlength=labelled.spec.context_vocab) / count for found in (classes, taken))
        told = fidelity.precision_recall(real, fake, NEAREST[0])._asdict()
        told |= fidelity.density_coverage(real, fake, NEAREST[1])._asdict()
        told |= {"frechet": fidelity.frechet(real, fake), "classes_kl": float(divergences.kl(*shares))}
        return {f"fidelity/{name}": value for name, value in (told | constant).items()}

    return evaluate


def with_labels(config: ConfigDict) -> tuple[Data, list]:
    """The config's images with their classes, in an order that is the same in all runs; and what they are made from."""
    copy = config.copy_and_resolve_references()
    copy.seed, copy.steps, copy.data.batch_size, copy.data.conditional = 0, 1, BATCH, True
    names = [source[0] for source in copy.data.sources] or [copy.data.name]
    raw = datasets.load(names, copy.data)
    for name, found in zip(names, raw, strict=True):
        if len(found.meta.get("classes") or ()) < 2:
            raise ConfigError(f"evaluator 'fidelity' learns its features from class labels, and {name} has none")
    made_from = [copy.data.name, copy.data.sources, copy.data.image_size, copy.data.levels]
    return datasets.build(copy, None), [*made_from, [found.digest for found in raw]]


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
    return np.asarray(models.pictures(np.concatenate(tokens), labelled.spec)), np.concatenate(labels)


def trained(network: Classifier, labelled: Data, key: list) -> models.Params:
    """The parameters of the classifier of these data: found in the cache, or put there."""

    def make(folder: Path) -> None:
        np.savez(folder / "classifier.npz", *jax.device_get(jax.tree.leaves(fit(network, labelled))))

    structure = jax.tree.structure(jax.eval_shape(network.init, jax.random.key(0)))
    with np.load(corpus.cached(["classifier", RECIPE, key], make) / "classifier.npz") as found:
        return jax.tree.unflatten(structure, [found[name] for name in found.files])


def fit(network: Classifier, labelled: Data) -> models.Params:
    """Minimises cross-entropy on train by Adam: about 5 passes, but 600 steps at least and 4,000 at most."""
    steps = min(max(FEWEST, EPOCHS * labelled.summary["examples"] // BATCH), MOST)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))

    def loss(params, batch):
        logits = network.apply(params, models.pictures(batch["tokens"], labelled.spec))[1]
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
