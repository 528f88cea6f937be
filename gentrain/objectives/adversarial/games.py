"""Adversarial games: what a critic and a generator minimise, one row a loss."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from gentrain.losses import class_weights, critic_nll, generator_loss

Logits = Float[Array, "n ..."]


class Game(NamedTuple):
    """One loss of the generator with the critic that it goes with.

    critic_loss(real_logits, fake_logits, real_prior, label_smoothing) -> the terms of real and of fake examples, such
    that the critic minimises their mean over both.
    cost(logits, real_prior, real_logits) -> what the generator minimises for each of its examples.
    log_ratio: whether the critic's optimal logit is log(pi / (1 - pi)) + log P/Q. Then every prefix of a sequence has
    one too, minus the cost is a reward, and the critic's diagnostics mean what they say.
    normalised: whether the costs of a batch are divided by their mean.
    paired: whether an example's cost compares it with a real one.
    """

    critic_loss: Callable[[Logits, Logits, float, float], tuple[Logits, Logits]]
    cost: Callable[[Logits, float, Logits | None], Logits]
    log_ratio: bool = True
    normalised: bool = False
    paired: bool = False


def hinge_critic(real: Logits, fake: Logits, real_prior: float, label_smoothing: float) -> tuple[Logits, Logits]:
    """max(0, 1 - l) of real examples and max(0, 1 + l) of generated ones, by class_weights (Lim and Ye, 2017)."""
    real_weight, fake_weight = class_weights(real_prior, len(real), len(fake))
    return real_weight * jax.nn.relu(1 - real), fake_weight * jax.nn.relu(1 + fake)


def hinge_cost(logits: Logits, real_prior: float, real_logits: Logits | None) -> Logits:
    """-l."""
    return -logits


def relativistic_critic(real: Logits, fake: Logits, real_prior: float, label_smoothing: float) -> tuple[Logits, Logits]:
    """2 softplus(l_fake - l_real) of each pair, counted once (Jolicoeur-Martineau, 2019)."""
    return 2 * jax.nn.softplus(fake - real), jnp.zeros_like(real)


def relativistic_cost(logits: Logits, real_prior: float, real_logits: Logits | None) -> Logits:
    """softplus(l_real - l_fake) of each pair."""
    assert real_logits is not None
    return jax.nn.softplus(real_logits - logits)


def log_ratio_cost(name: str, logits: Logits, real_prior: float, real_logits: Logits | None) -> Logits:
    """losses.generator_loss of that name."""
    return generator_loss(logits, name, real_prior)


GAMES = {
    "js": Game(critic_nll, partial(log_ratio_cost, "js")),
    "reverse_kl": Game(critic_nll, partial(log_ratio_cost, "reverse_kl")),
    "forward_kl": Game(critic_nll, partial(log_ratio_cost, "forward_kl"), normalised=True),
    "non_saturating": Game(critic_nll, partial(log_ratio_cost, "non_saturating")),
    "hinge": Game(hinge_critic, hinge_cost, log_ratio=False),
    "relativistic": Game(relativistic_critic, relativistic_cost, log_ratio=False, paired=True),
}
