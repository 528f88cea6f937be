"""Losses: arrays in, arrays out; no parameters, no config."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.metrics import Sum


def masked_sum(values: Float[Array, "..."], mask: Bool[Array, "..."]) -> Sum:
    """Sum(total of the values where mask holds, how many that are); values under a False mask may be anything, NaN
    included."""
    return Sum(jnp.sum(jnp.where(mask, values, 0)), jnp.sum(mask).astype(jnp.float32))


def token_nll(
    logits: Float[Array, "batch length vocab"], tokens: Int[Array, "batch length"]
) -> tuple[Float[Array, "batch length"], Float[Array, "batch length"]]:
    """Negative log-likelihood of each token, and the log-normaliser it came from.

    nll = log Z - logits[token], log Z = log sum_v exp(logits[v]); both in nats.
    """
    log_z = jax.nn.logsumexp(logits, axis=-1)
    return log_z - jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0], log_z


def smoothed_nll(
    logits: Float[Array, "batch length vocab"],
    tokens: Int[Array, "batch length"],
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Float[Array, "batch length"], Float[Array, "batch length"]]:
    """Cross-entropy of a smoothed target, and the plain negative log-likelihood; nats a token.

    loss = (1 - s) nll + s mean_v(log Z - logits[v]) + z (log Z)^2: the target gives weight s to the uniform law
    (Szegedy et al., 2016), and z keeps the normaliser near 1 (Chowdhery et al., 2022).
    """
    nll, log_z = token_nll(logits, tokens)
    loss = nll
    if label_smoothing:
        loss = (1 - label_smoothing) * nll + label_smoothing * (log_z - jnp.mean(logits, axis=-1))
    if z_loss:
        loss = loss + z_loss * jnp.square(log_z)
    return loss, nll
