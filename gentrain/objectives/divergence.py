"""The normalised JS_pi to a world that is known exactly, computed over its whole support: the dial without a critic."""

from dataclasses import dataclass

import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain import models, plugins, worlds
from gentrain.data import Spec
from gentrain.divergences import normalised_js_from_logits
from gentrain.errors import ConfigError
from gentrain.metrics import Sum
from gentrain.worlds.support import Support, support


@dataclass(frozen=True)
class Divergence:
    """loss = JS_pi[P||Q] / (pi (1 - pi)), in nats an example: KL[P||Q] at pi = 0, KL[Q||P] at pi = 1 (Huszár, 2015).

    P and Q are laws over a support of (points, log_p), which is every sequence of a world or a fine grid of points,
    where log_p and log_q + log_volume are logarithms of masses. Its gradient is exact, so what it reaches is what the
    divergence, the model and the start decide; the batch is not looked at.
    """

    model: models.SequenceModel | models.DensityModel
    support: Support
    real_prior: float
    players: tuple[str, ...] = ("generator",)
    splittable: bool = False

    def init(self, key, batch):
        return {"generator": self.model.init(key)}, {}

    def loss(self, player, params, carry, batch, key, step):
        log_q = (
            models.log_prob(self.model, params[player], jnp.asarray(self.support.examples)) + self.support.log_volume
        )
        value = normalised_js_from_logits(jnp.asarray(self.support.log_p), log_q, self.real_prior)
        one = jnp.ones(())
        return Sum(value, one), {"divergence": Sum(value, one)}

    def remember(self, carry, metrics, params):
        return carry


def build(config: ConfigDict, spec: Spec) -> Divergence:
    world = worlds.of(config, "objective.name='divergence'")
    model = plugins.load("models", config.model.name).build(config.model, spec)
    everywhere = support(world)
    if everywhere is None:
        raise ConfigError(f"objective.name='divergence' cannot enumerate {config.data.name}; take a smaller world")
    return Divergence(model, everywhere, config.objective.real_prior)
