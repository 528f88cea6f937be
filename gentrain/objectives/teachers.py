"""What several models make of one position: a mean of their laws, to learn from or to draw from."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gentrain.models.base import Inputs, Params, SequenceModel, before_logits, unchanged


def weigh(sources: Int[Array, "batch"] | None, rows: int, count: int) -> Float[Array, "batch teachers"]:
    """Logarithms of the teachers' weights for each row: all alike, or 1 for that of the row's source."""
    if sources is None:
        return jnp.full((rows, count), -jnp.log(count))
    return jnp.where(sources[:, None] == jnp.arange(count)[None, :], 0.0, -jnp.inf)


def ask(
    model: SequenceModel,
    params: list[Params],
    inputs: Inputs,
    context: Array | None,
    log_weights: Float[Array, "batch teachers"],
) -> Float[Array, "batch length teachers features"]:
    """What `mean` makes logits of: the last layer's inputs of every teacher, each with its weight behind them."""
    layers = jnp.stack([before_logits(model, own, inputs, context) for own in params], axis=2)
    weights = jnp.broadcast_to(log_weights[:, None, :, None], (*layers.shape[:3], 1))
    return jnp.concatenate([layers, weights.astype(layers.dtype)], axis=-1)


def mean(
    model: SequenceModel, params: list[Params], x: Float[Array, "batch length teachers features"]
) -> Float[Array, "batch length vocab"]:
    """log of the weighted mean of the teachers' laws."""
    laws = jnp.stack([jax.nn.log_softmax(model.logits(own, x[:, :, k, :-1])) for k, own in enumerate(params)], axis=2)
    return jax.nn.logsumexp(x[:, :, :, -1:] + laws, axis=2)


def mixed(student: SequenceModel, teacher: SequenceModel, share: float) -> SequenceModel:
    """The law share P(.|x_<t) + (1 - share) Q(.|x_<t), to draw from; its parameters are those of both."""

    def start(params, batch, length, context=None):
        return (
            student.start(params["student"], batch, length, context),
            teacher.start(params["teacher"], batch, length, context),
        )

    def step(params, caches, token):
        own, log_q = student.step(params["student"], caches[0], token)
        other, log_p = teacher.step(params["teacher"], caches[1], token)
        log_q, log_p = jax.nn.log_softmax(log_q), jax.nn.log_softmax(log_p)
        return (own, other), jnp.logaddexp(jnp.log(share) + log_p, jnp.log1p(-share) + log_q)

    return student._replace(start=start, step=step, extend=None, fold=unchanged, gather=unchanged)
