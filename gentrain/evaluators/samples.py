"""Samples from the generator, to be read or looked at."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gentrain import decode, sharding
from gentrain.data import Data
from gentrain.errors import ConfigError
from gentrain.metrics import Images, Texts
from gentrain.models import SequenceModel, example_keys


def build(config: ConfigDict, model: SequenceModel, data: Data, mesh):
    """Draws sample.count documents or images at sample.temperature, sample.top_k and sample.top_p; contexts, where
    the data has them, go round in order. Also measured: samples/length, mean tokens a sample, and samples/entropy,
    nats/token of the law drawn from."""
    options, spec = config.sample, data.spec
    if spec.kind == "points":
        raise ConfigError("evaluator 'samples' shows text and images; for points use 'exact'")
    law = partial(decode.filtered, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def draw(params, key):
        rows = jnp.arange(options.count)
        context = (rows % spec.context_vocab)[:, None] if spec.context_vocab else None
        keys = example_keys(key, rows)
        return decode.sample(model, params, keys, spec.length, end=spec.end, context=context, law=law)

    def evaluate(params, key):
        drawn = jax.device_get(draw(params["generator"], key))
        closed = drawn.mask & (drawn.tokens != spec.end) if spec.end is not None else drawn.mask
        decoded = [spec.decode(tokens[keep]) for tokens, keep in zip(drawn.tokens, closed, strict=True)]
        return {
            "samples": Texts(decoded) if spec.kind == "text" else Images(np.stack(decoded)),
            "samples/length": float(drawn.mask.sum(-1).mean()),
            "samples/entropy": float(-drawn.log_prob.sum() / drawn.mask.sum()),
        }

    return evaluate
