"""A mixture of laws of independent positions: of pictures in black and white, of K factorised Bernoullis."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.base import SequenceModel
from gentrain.models.factorised_mixture_options import Options


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """Q(x) = sum_k w_k prod_t Q_kt(x_t), w = softmax(weights) (components,), Q_kt = softmax(table[k, t]) (vocab,).

    Token by token: Q(x_t|x_<t) = sum_k r_k(x_<t) Q_kt(x_t), r the posterior of a component given the prefix. So log Q
    of a whole sequence is exact, and the model fits wherever a SequenceModel does. Starts near uniform.
    """
    components = Options.of(config).components
    if spec.end is not None or spec.context_vocab:
        raise ConfigError("model.name='factorised_mixture' is for sequences of a fixed length, without contexts")

    def init(key):
        noise = 0.3 * jax.random.normal(key, (components, spec.length, spec.vocab))
        return {"weights": jnp.zeros((components,)), "table": noise}

    def apply(params, inputs, context=None, keys=None):
        table, length = jax.nn.log_softmax(params["table"]), inputs.shape[1]
        read = score(table[:, : length - 1], inputs[:, 1:])  # the first input is BOS
        prior = jnp.broadcast_to(jax.nn.log_softmax(params["weights"]), (len(inputs), 1, components))
        scores = jnp.cumsum(jnp.concatenate([prior, read], axis=1), axis=1)
        return mix(scores, jnp.swapaxes(table, 0, 1)[None, :length])

    def start(params, batch, length, context=None):
        prior = jnp.broadcast_to(jax.nn.log_softmax(params["weights"]), (batch, components))
        return {"scores": prior, "position": jnp.zeros((batch,), jnp.int32)}

    def step(params, cache, token):
        table, position = jnp.swapaxes(jax.nn.log_softmax(params["table"]), 0, 1), cache["position"]
        before = table[jnp.maximum(position - 1, 0)]  # (batch, components, vocab)
        read = jnp.take_along_axis(before, jnp.minimum(token, spec.vocab - 1)[:, None, None], axis=2)[:, :, 0]
        scores = cache["scores"] + jnp.where((position > 0)[:, None], read, 0.0)
        return {"scores": scores, "position": position + 1}, mix(scores, table[position])

    return SequenceModel(init, apply, start, step, spec.vocab)


def score(
    table: Float[Array, "components length vocab"], tokens: Int[Array, "batch length"]
) -> Float[Array, "batch length components"]:
    """log-probability of each token in each component, nats."""
    return jnp.moveaxis(table, 0, -1)[jnp.arange(table.shape[1])[None, :], tokens]


def mix(
    scores: Float[Array, "*batch components"], laws: Float[Array, "*#batch components vocab"]
) -> Float[Array, "*batch vocab"]:
    """log of the components' mean law, by the posterior softmax(scores)."""
    return jax.nn.logsumexp(jax.nn.log_softmax(scores)[..., None] + laws, axis=-2)
