"""The normalised JS_pi to a world that is known exactly, computed over its whole support: the dial without a critic."""

from dataclasses import dataclass

import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain import worlds
from gentrain.datasets.spec import Spec
from gentrain.divergences import normalised_js_from_logits
from gentrain.errors import ConfigError
from gentrain.models.base import DensityModel, SequenceModel
from gentrain.objectives.base import Objective, Optimum, generator_of
from gentrain.objectives.optima import factorised_optimum
from gentrain.sums import Metric, Sum
from gentrain.worlds.support import Support, support

METRICS = {"generator/divergence": Metric("nats", "lower", "JS_pi / (pi (1 - pi)) to the world, exactly")}


@dataclass(frozen=True)
class Divergence(Objective):
    """loss = JS_pi[P||Q] / (pi (1 - pi)), in nats an example: KL[P||Q] at pi = 0, KL[Q||P] at pi = 1 (Huszár, 2015).

    P and Q are laws over a support: every sequence of a world, or a fine grid of points, where log_p and log_q +
    log_volume are logarithms of masses. The gradient is exact, so the divergence, the model and the start alone decide
    where a run ends; the batch is not read.
    """

    model: SequenceModel | DensityModel
    support: Support
    real_prior: float
    splittable: bool = False

    def loss(self, player, params, carry, batch, key, step):
        log_q = self.model.log_prob(params[player], jnp.asarray(self.support.examples)) + self.support.log_volume
        value = normalised_js_from_logits(jnp.asarray(self.support.log_p), log_q, self.real_prior)
        one = jnp.ones(())
        return Sum(value, one), {"divergence": Sum(value, one)}

    def optimum(self, world: worlds.World) -> Optimum | None:
        return factorised_optimum(self.model, world, self.real_prior)


def build(config: ConfigDict, spec: Spec) -> Divergence:
    """Raises ConfigError for a world that cannot be enumerated."""
    world = worlds.of(config, "objective.name='divergence'")
    model = generator_of(config, spec)
    all_examples = support(world)
    if all_examples is None:
        raise ConfigError(f"objective.name='divergence' cannot enumerate {config.data.name}; take a smaller world")
    return Divergence(model, all_examples, config.objective.real_prior)
