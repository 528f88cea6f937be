"""Cooperative training: a mediator learns the mixture of data and samples, and the generator follows it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain import decode, health, models, plugins
from gentrain.data import Spec
from gentrain.errors import ConfigError
from gentrain.losses import masked_sum
from gentrain.metrics import Sum

FAKES = 2**32 - 1  # apart from the keys of dropout, which are of rows


@dataclass(frozen=True)
class Cooperative:
    """Mediator: pi E_P[-log M] + (1 - pi) E_Q[-log M], nats a token, least at M = pi P + (1 - pi) Q, pi = real_prior.
    Generator: E_{x~Q} sum_t KL[Q(. | x_<t) || M(. | x_<t)], by a sum over the vocabulary, no gradient through prefixes.

    Both are likelihoods, so nothing is adversarial and no reward is drawn; in place of the sequence's KL[Q||M], whose
    weight in JS_pi is 1 - pi, the generator descends its terms one by one. pi = 1/2 is CoT; as pi grows the mediator
    is the data's own model and this is on-policy reverse-KL distillation. Lu et al. (2019).
    """

    model: models.SequenceModel
    mediator: models.SequenceModel
    end: int | None
    real_prior: float
    players: tuple[str, ...]
    splittable: bool = True

    def init(self, key, batch):
        return {"mediator": self.mediator.init(jax.random.fold_in(key, 1)), "generator": self.model.init(key)}, {}

    def loss(self, player, params, carry, batch, key, step):
        context, keys = batch.get("context"), models.example_keys(key, batch["row"])
        there = batch["mask"][:, :1]
        drawn = decode.sample(
            self.model,
            jax.lax.stop_gradient(params["generator"]),
            models.example_keys(jax.random.fold_in(key, FAKES), batch["row"]),
            batch["tokens"].shape[1],
            end=self.end,
            context=context,
        )
        fed = lambda tokens: models.shift_right(tokens, self.model.vocab, self.end)
        if player == "mediator":
            own, pi = params["mediator"], self.real_prior
            nll = lambda tokens: models.token_nlls(self.mediator, own, fed(tokens), tokens, context, keys)
            real = masked_sum(nll(batch["tokens"]), batch["mask"])
            fake = masked_sum(nll(drawn.tokens), drawn.mask & there)
            total = 2 * pi * real.total + 2 * (1 - pi) * fake.total
            return Sum(total, real.weight + fake.weight), {"real_nll": real, "fake_nll": fake}

        def compared(logits, mediated):
            log_q = jax.nn.log_softmax(logits, axis=-1)
            log_m = jax.nn.log_softmax(self.mediator.logits(params["mediator"], mediated), axis=-1)
            q = jnp.exp(log_q)
            return jnp.sum(q * (log_q - log_m), axis=-1), -jnp.sum(q * log_q, axis=-1)

        inputs = fed(drawn.tokens)
        mediated = models.before_logits(self.mediator, params["mediator"], inputs, context)
        apart, entropy = models.at_positions(
            self.model, params["generator"], compared, inputs, mediated, context=context, keys=keys
        )
        alive = drawn.mask & there
        signs = health.compare(batch["tokens"], drawn.tokens)
        return masked_sum(apart, alive), {"entropy": masked_sum(entropy, alive), **signs}

    def remember(self, carry, metrics, params):
        return carry


def build(config: ConfigDict, spec: Spec) -> Cooperative:
    """The mediator is the model of config.critic. Raises ConfigError for models that are not of sequences."""
    model, mediator = (
        plugins.load("models", section.name).build(section, spec) for section in (config.model, config.critic)
    )
    if not (isinstance(model, models.SequenceModel) and isinstance(mediator, models.SequenceModel)):
        raise ConfigError(
            "objective.name='cooperative' needs model.name and critic.name of sequences, as lstm; they are"
            f" {config.model.name!r} and {config.critic.name!r}"
        )
    players = ("mediator",) * config.objective.critic_steps + ("generator",)
    return Cooperative(model, mediator, spec.end, config.objective.real_prior, players)
