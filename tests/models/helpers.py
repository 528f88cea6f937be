"""Tiny random models, those of sequences compiled once for all tests of a process, and what to do with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs.base import get_config
from gentrain.datasets.spec import TextSpec
from gentrain.plugins import companion, load, names

VOCAB, CONTEXT_VOCAB, BATCH, LENGTH, BOS = 7, 5, 3, 8, 7
VARIANTS = {
    "lstm": {"name": "lstm"},
    "lstm tied context": {"name": "lstm", "tie_embeddings": True, "context_vocab": CONTEXT_VOCAB},
    "transformer": {"name": "transformer"},
    "transformer tied unrolled": {"name": "transformer", "tie_embeddings": True, "kv_heads": 1, "scan_layers": False},
    "transformer, begin unseen": {"name": "transformer", "sees_begin": False},
    "transformer context": {"name": "transformer", "context_vocab": CONTEXT_VOCAB, "mlp_width": 8},
    "gpt2": {"name": "gpt2", "mlp_width": 8},
    "gpt2 tied context, begin unseen": {
        "name": "gpt2",
        "tie_embeddings": True,
        "context_vocab": CONTEXT_VOCAB,
        "sees_begin": False,
    },
}
PICTURE = {"context_vocab": 256, "context_shape": (9, 14, 2), "layers": 1}


def build(spec, name, **options):
    """The model of that name; options: those of its section or of its family."""
    config = get_config().model
    config.name, config.width, config.layers = name, 16, 2
    config.transformer.heads, config.transformer.kv_heads = 4, 2
    config.gpt2.positions = 32
    for key, value in options.items():
        (config if key in config else config[name])[key] = value
    return load("models", name).build(config, spec)


@functools.cache
def make(variant, **changes):
    """-> (model with compiled functions, parameters, all of them random, also those that start at 0 or 1)."""
    changes = VARIANTS[variant] | changes
    context = {key: changes.pop(key) for key in ("context_vocab", "context_shape") if key in changes}
    model = build(TextSpec(VOCAB, LENGTH, **context), **changes)
    rng = np.random.default_rng(len(variant))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda x: rng.normal(0.1, 0.3, x.shape).astype(x.dtype), shapes)
    compiled = {name: jax.jit(getattr(model, name)) for name in ("apply", "step")}
    compiled |= {"start": jax.jit(model.start, static_argnums=(1, 2))}
    compiled |= {"extend": jax.jit(model.extend)} if model.extend else {}
    return model._replace(**compiled), params


# Inputs are NumPy arrays: JAX would compile a program for every operation on them.
def draw(variant, positions=2):
    """-> (inputs without a beginning, context or None)."""
    rng = np.random.default_rng(positions)
    inputs, context = rng.integers(0, VOCAB, (BATCH, LENGTH)), rng.integers(0, CONTEXT_VOCAB, (BATCH, positions))
    return inputs.astype(np.int32), context.astype(np.int32) if "context" in variant else None


def put(inputs, value, *places):
    """A copy with the value at these places, each an index."""
    inputs = inputs.copy()
    for place in places:
        inputs[place] = value
    return inputs


def one_hot(inputs):
    """Mixtures of one token each."""
    return np.eye(VOCAB + 1, dtype=np.float32)[inputs]


def dropout_keys(seed=1):
    return jax.random.split(jax.random.key(seed), BATCH)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def changed(a, b):
    """(batch, length): where the logits differ."""
    return (np.asarray(a) != np.asarray(b)).any(-1)


@functools.cache
def loss_and_gradient(model):
    def loss(params, inputs, context=None, keys=None):
        return jnp.square(model.apply(params, inputs, context, keys)).mean()

    return jax.jit(jax.value_and_grad(loss))


@functools.partial(jax.jit, static_argnums=0)
def decode(model, params, inputs, context):
    cache = model.start(params, inputs.shape[0], inputs.shape[1], context)
    inputs = inputs.swapaxes(0, 1)  # tokens, or mixtures of them
    _, logits = jax.lax.scan(lambda cache, token: model.step(params, cache, token), cache, inputs)
    return logits.swapaxes(0, 1)


def weights(module, *inputs):
    """Random parameters of a module, also of those that start at 0 or 1."""
    rng, shapes = np.random.default_rng(3), jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def conv(x, kernel, bias=0.0, stride=1):
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dimensions)
    return np.asarray(y) + bias


def published_family(said):
    """(model.name, its module models/<name>_published.py) of a config.json."""
    for name in names("models"):
        module = companion("models", name, "published")
        if module and said["model_type"] in module.MODEL_TYPES:
            return name, module
    raise AssertionError(said["model_type"])


def published_section(said, adds_begin=True, **changes):
    """A network's section as a config.json and a tokenizer say it; changes: of the family's options."""
    name, module = published_family(said)
    section = get_config().model
    section.update_from_flattened_dict({"name": name, **module.options_of(said, adds_begin)})
    section[name].update(changes)
    return section
