"""Cooperative training: a mediator learns the mixture of data and samples, and the generator follows it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int
from ml_collections import ConfigDict

from gentrain import decode, plugins
from gentrain.datasets.spec import Spec
from gentrain.losses import masked_sum
from gentrain.models.base import Params, SequenceModel, at_positions, before_logits, token_nlls
from gentrain.models.feeding import example_keys
from gentrain.objectives.base import Batch, Loss, Objective, generator_of
from gentrain.objectives.cooperative_options import Options
from gentrain.objectives.diagnostics import COLLAPSE, DIAGNOSTICS, compare
from gentrain.sums import Metric, Sum

METRICS = DIAGNOSTICS | {
    "mediator/real_nll": Metric("nats/token", None, "the mediator's negative log-likelihood of the data"),
    "mediator/fake_nll": Metric("nats/token", None, "the mediator's negative log-likelihood of samples"),
    "generator/entropy": Metric("nats/token", None, "entropy of the generator's conditionals on its own prefixes"),
}
FAKES = 2**32 - 1  # its keys are apart from those of dropout, which are of rows
Tokens = Int[Array, "batch length"]
Mask = Bool[Array, "batch length"]


@dataclass(frozen=True)
class Cooperative(Objective):
    """Mediator: pi E_P[-log M] + (1 - pi) E_Q[-log M], nats a token, least at M = pi P + (1 - pi) Q, pi = real_prior.
    Generator: E_{x~Q} sum_t KL[Q(. | x_<t) || M(. | x_<t)], by a sum over the vocabulary, no gradient through prefixes.

    Both are likelihoods, so nothing is adversarial and no reward is drawn. In place of the sequence's KL[Q||M], whose
    weight in JS_pi is 1 - pi, the generator descends its terms one by one. pi = 1/2 is CoT; as pi grows the mediator
    becomes a model of the data, and this is on-policy reverse-KL distillation. Lu et al. (2019).
    """

    model: SequenceModel
    mediator: SequenceModel
    real_prior: float
    mediator_rate: float
    players: tuple[str, ...]
    alarms = (COLLAPSE,)

    def init(self, key, batch):
        return {"mediator": self.mediator.init(jax.random.fold_in(key, 1)), "generator": self.model.init(key)}, {}

    def loss(self, player, params, carry, batch, key, step):
        samples = decode.sample(
            self.model,
            jax.lax.stop_gradient(params["generator"]),
            example_keys(jax.random.fold_in(key, FAKES), batch["row"]),
            batch["tokens"].shape[1],
            end=self.model.end,
            context=batch.get("context"),
        )
        sample_mask = samples.mask & batch["mask"][:, :1]
        keys = example_keys(key, batch["row"])
        if player == "mediator":
            return self.mediator_loss(params, batch, samples.tokens, sample_mask, keys)
        return self.generator_loss(params, batch, samples.tokens, sample_mask, keys)

    def rate(self, player):
        return self.mediator_rate if player == "mediator" else 1.0

    def mediator_loss(
        self, params: dict[str, Params], batch: Batch, samples: Tokens, sample_mask: Mask, keys: Array
    ) -> Loss:
        """-2 pi log M(data) - 2 (1 - pi) log M(samples), nats, over the tokens of both."""
        pi = self.real_prior

        def nll(tokens, mask):
            inputs = self.model.inputs(tokens)
            context = batch.get("context")
            return masked_sum(token_nlls(self.mediator, params["mediator"], inputs, tokens, context, keys), mask)

        real, fake = nll(batch["tokens"], batch["mask"]), nll(samples, sample_mask)
        total = 2 * pi * real.total + 2 * (1 - pi) * fake.total
        return Sum(total, real.weight + fake.weight), {"real_nll": real, "fake_nll": fake}

    def generator_loss(
        self, params: dict[str, Params], batch: Batch, samples: Tokens, sample_mask: Mask, keys: Array
    ) -> Loss:
        """KL[Q(. | x_<t) || M(. | x_<t)] at every position of the samples, nats."""

        def divergence(logits, mediator_hidden):
            log_q = jax.nn.log_softmax(logits, axis=-1)
            log_m = jax.nn.log_softmax(self.mediator.logits(params["mediator"], mediator_hidden), axis=-1)
            q = jnp.exp(log_q)
            return jnp.sum(q * (log_q - log_m), axis=-1), -jnp.sum(q * log_q, axis=-1)

        inputs, context = self.model.inputs(samples), batch.get("context")
        mediator_hidden = before_logits(self.mediator, params["mediator"], inputs, context)
        kl, entropy = at_positions(
            self.model, params["generator"], divergence, inputs, mediator_hidden, context=context, keys=keys
        )
        metrics = {"entropy": masked_sum(entropy, sample_mask)} | compare(batch["tokens"], samples)
        return masked_sum(kl, sample_mask), metrics


def build(config: ConfigDict, spec: Spec) -> Cooperative:
    model = generator_of(config, spec)
    mediator = plugins.load("models", config.mediator.name).build(config.mediator, spec)
    options = Options.read(config.objective, config.cooperative)
    players = ("mediator",) * options.mediator_steps + ("generator",)
    return Cooperative(model, mediator, options.real_prior, options.mediator_rate, players)
