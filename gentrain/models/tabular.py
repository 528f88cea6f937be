"""A table of conditionals, one for each prefix: the model that can be any law of sequences of a fixed length."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.base import SequenceModel

LARGEST = 10**6  # entries of a table


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """Q(x_t | x_<t) = softmax(table_t[x_<t]), where the table of position t has vocab^t rows; starts uniform.

    Knows no documents within a row, so data with an end token is refused, as are tables of more than a million entries.
    """
    del config
    vocab, length = spec.vocab, spec.length
    if spec.end is not None or spec.context_vocab:
        raise ConfigError("model.name='tabular' is for worlds of sequences of a fixed length, without contexts")
    if sum(vocab**t for t in range(1, length + 1)) > LARGEST:
        raise ConfigError(f"model.name='tabular': {vocab}^{length} sequences; more than {LARGEST:,} entries")
    first_rows = jnp.asarray([sum(vocab**s for s in range(t)) for t in range(length)])  # of each position's prefixes

    def number_prefixes(inputs):
        """The number of each prefix among those of its length: inputs[:, 0] is BOS, the others are digits."""
        digits = jnp.where(inputs == vocab, 0, inputs)
        number = jnp.zeros(inputs.shape[0], jnp.int32)
        numbers = []
        for t in range(inputs.shape[1]):
            number = number * vocab + digits[:, t]
            numbers.append(number)
        return jnp.stack(numbers, axis=1)

    def init(key):
        return {"table": jnp.zeros((sum(vocab**t for t in range(length)), vocab))}

    def apply(params, inputs, context=None, keys=None):
        return params["table"][first_rows[None, : inputs.shape[1]] + number_prefixes(inputs)]

    def start(params, batch, length, context=None):
        return {"number": jnp.zeros((batch,), jnp.int32), "position": jnp.zeros((batch,), jnp.int32)}

    def step(params, cache, token):
        number = cache["number"] * vocab + jnp.where(token == vocab, 0, token)
        logits = params["table"][first_rows[cache["position"]] + number]
        return {"number": number, "position": cache["position"] + 1}, logits

    return SequenceModel(init, apply, start, step, vocab)
