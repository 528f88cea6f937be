"""Independent positions: the model that knows every marginal and no dependence."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.base import SequenceModel


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """Q(x) = prod_t softmax(logits_t)[x_t], whatever the prefix; starts near uniform, off the symmetric point."""
    del config
    if spec.end is not None or spec.context_vocab:
        raise ConfigError("model.name='factorised' is for sequences of a fixed length, without contexts")

    def init(key):
        return {"table": 0.3 * jax.random.normal(key, (spec.length, spec.vocab))}

    def apply(params, inputs, context=None, keys=None):
        return jnp.broadcast_to(params["table"][None, : inputs.shape[1]], (*inputs.shape, spec.vocab))

    def start(params, batch, length, context=None):
        return jnp.zeros((batch,), jnp.int32)

    def step(params, cache, token):
        return cache + 1, params["table"][cache]

    return SequenceModel(init, apply, start, step, spec.vocab, independent=True)
