"""Losses: arrays in, arrays out; no parameters, no config."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.sums import Sum


def masked_sum(values: Float[Array, "..."], mask: Bool[Array, "..."]) -> Sum:
    """The total of the values where the mask holds, and how many they are.

    Values where it does not hold may be anything, NaN included: they reach neither the total nor its gradient.
    """
    return Sum(jnp.sum(jnp.where(mask, values, 0)), jnp.sum(mask).astype(jnp.float32))


def token_nll(
    logits: Float[Array, "batch length vocab"], tokens: Int[Array, "batch length"]
) -> tuple[Float[Array, "batch length"], Float[Array, "batch length"]]:
    """Negative log-likelihood of each token, and the log-normaliser that it came from.

    nll = log Z - logits[token], log Z = log sum_v exp(logits[v]); both in nats.
    """
    log_z = jax.nn.logsumexp(logits, axis=-1)
    return log_z - jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0], log_z


class Scores(NamedTuple):
    """What a likelihood reads of the logits of each position, in nats."""

    nll: Float[Array, "batch length"]
    log_z: Float[Array, "batch length"]
    mean_logit: Float[Array, "batch length"]


def score(logits: Float[Array, "batch length vocab"], tokens: Int[Array, "batch length"]) -> Scores:
    """token_nll, and the mean logit of all tokens."""
    return Scores(*token_nll(logits, tokens), jnp.mean(logits, axis=-1))


def smoothed_nll(scores: Scores, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Float[Array, "batch length"]:
    """Cross-entropy of a smoothed target, in nats a token.

    loss = (1 - s) nll + s mean_v(log Z - logits[v]) + z (log Z)^2: the target gives weight s to the uniform law
    (Szegedy et al., 2016), and z keeps the normaliser near 1 (Chowdhery et al., 2022).
    """
    loss = scores.nll
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + label_smoothing * (scores.log_z - scores.mean_logit)
    if z_loss:
        loss = loss + z_loss * jnp.square(scores.log_z)
    return loss


def cross_entropy(
    target: Float[Array, "batch length vocab"], logits: Float[Array, "batch length vocab"]
) -> Float[Array, "batch length"]:
    """-sum_v T(v) log Q(v), Q = softmax(logits), in nats: KL[T||Q] plus the entropy of the target T."""
    return -jnp.sum(target * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def class_weights(
    real_prior: float | Float[Array, ""], n_real: int, n_fake: int
) -> tuple[float | Float[Array, ""], float | Float[Array, ""]]:
    """Weights of real and of generated examples, with which their mean, taken together, is pi E_P + (1 - pi) E_Q.

    pi n / n_real and (1 - pi) n / n_fake, n = n_real + n_fake and pi = real_prior: 2 pi and 2 (1 - pi) for equal
    halves, 1 for batches in the ratio of the prior.
    """
    n = n_real + n_fake
    return real_prior * n / max(n_real, 1), (1 - real_prior) * n / max(n_fake, 1)


def critic_nll(
    real_logits: Float[Array, "real ..."],
    fake_logits: Float[Array, "fake ..."],
    real_prior: float | Float[Array, ""],
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, "real ..."], Float[Array, "fake ..."]]:
    """Negative log-likelihood of "real or fake?", weighted so that its mean over the two batches, taken together, is

        pi E_P[-log D] + (1 - pi) E_Q[-log(1 - D)],  logits = log D / (1 - D),  pi = real_prior; nats.

    The weights are class_weights. The optimal critic has logit log(pi / (1 - pi)) + log P/Q, where the mean is
    H2(pi) - JS_pi[P||Q], H2 the entropy of the prior (Huszár, 2015; Mohamed and Lakshminarayanan, 2016). With label
    smoothing s the target of real examples is 1 - s (Salimans et al., 2016), and the optimum
    D = (1 - s) pi P / (pi P + (1 - pi) Q).
    """
    real_weight, fake_weight = class_weights(real_prior, len(real_logits), len(fake_logits))
    real = jax.nn.softplus(-real_logits) + label_smoothing * real_logits  # softplus(l) = softplus(-l) + l
    return real_weight * real, fake_weight * jax.nn.softplus(fake_logits)


def generator_loss(logits: Float[Array, "..."], name: str, real_prior: float | Float[Array, ""]) -> Float[Array, "..."]:
    """What a generator minimises on its own samples, given a critic's logits l on them; one value an example.

    Named by the divergence whose gradient the mean has at the optimal critic, held fixed; pi = real_prior is the prior
    that the critic was trained with, M = pi P + (1 - pi) Q:

        js               -softplus(l) / pi                 JS_pi[P||Q] / (pi (1 - pi)): the dial, saturating (pi > 0)
        non_saturating   softplus(-l)                      KL[M||P] / (1 - pi) = KL[Q||P] - JS_pi[P||Q] / (1 - pi)
        reverse_kl       -l                                KL[Q||P], for every pi
        forward_kl       -exp(l - log(pi / (1 - pi)))      KL[P||Q], for every pi inside (0, 1)

    So non_saturating turns the dial the wrong way round: KL[Q||P] as pi -> 0, and more mode seeking still as pi -> 1.
    forward_kl is an importance weight: it overflows float32 at log-ratios above 88. ValueError for another name, and
    for a concrete pi at which the loss has no value. Huszár (2015); MaliGAN (Che et al., 2017) for the ratio.
    """
    undefined = {"js": (0.0,), "non_saturating": (), "reverse_kl": (), "forward_kl": (0.0, 1.0)}
    if name not in undefined:
        raise ValueError(f"no generator loss {name!r}: there are {', '.join(undefined)}")
    if not isinstance(real_prior, jax.core.Tracer) and float(real_prior) in undefined[name]:
        raise ValueError(f"the {name} generator loss has no value at real_prior {float(real_prior)}")
    if name == "js":
        return -jax.nn.softplus(logits) / real_prior
    if name == "non_saturating":
        return jax.nn.softplus(-logits)
    if name == "reverse_kl":
        return -logits
    return -jnp.exp(logits - jnp.log(real_prior) + jnp.log1p(-real_prior))
