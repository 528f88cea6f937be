"""How a generator is differentiated: through its examples, or, for tokens, by the score function or by mixtures."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from gentrain import decode
from gentrain.datasets.spec import Spec
from gentrain.losses import masked_sum
from gentrain.models.base import Params, SequenceModel
from gentrain.models.feeding import example_keys, sequence_starts
from gentrain.objectives.adversarial.critic import AUGMENT_FAKE, AUGMENT_REAL, Judge, token_nll_of
from gentrain.objectives.adversarial.examples import Examples, final_logits, real_examples, row_mask
from gentrain.objectives.adversarial_options import Options
from gentrain.objectives.base import Batch, Carry, Loss
from gentrain.objectives.diagnostics import compare
from gentrain.sums import Metric

METRICS = {
    "generator/logit": Metric("nats", None, "the critic's mean logit of generated examples"),
    "generator/reward": Metric("nats", None, "mean reward of generated sequences"),
    "generator/to_come": Metric("nats", None, "mean reward that is still to come at a token, which is averaged"),
    "generator/entropy": Metric("nats/token", None, "-log Q of the generator's own tokens"),
}
NEVER = -1  # no token ends a sequence
FAKES, ROLLOUTS = 2**32 - 1, 2**32 - 2  # their keys are apart from those of dropout, which are of rows


@dataclass(frozen=True)
class Estimator:
    """The generator's examples and its loss, given a critic."""

    model: Any
    spec: Spec
    judge: Judge
    options: Options

    @property
    def scores(self) -> bool:
        """Whether the gradient is that of the score function."""
        return isinstance(self.model, SequenceModel) and self.options.estimator == "score"

    def draw(self, params: Params, batch: Batch, key: Array) -> Examples:
        """As many examples of the generator as the batch has rows, from keys of those rows."""
        keys, context = example_keys(key, batch["row"]), batch.get("context")
        if not isinstance(self.model, SequenceModel):
            values = self.model.sample(params, keys, context)
            return Examples(values, jnp.ones((len(values), 1), bool))
        length = batch["tokens"].shape[1]
        if self.scores:
            generator = jax.lax.stop_gradient(params)
            samples = decode.sample(self.model, generator, keys, length, end=self.spec.end, context=context)
            return Examples(*samples)
        return self.draw_mixtures(params, batch, keys)

    def draw_mixtures(self, params: Params, batch: Batch, keys: Array) -> Examples:
        """Sequences of weights over tokens, (n, length, vocab + 1), that a gradient goes through.

        The weights are softmax((logits + Gumbel noise) / temperature), which 'straight_through' rounds to one token in
        the forward pass.
        """

        def choose(logits, positions):
            noisy = logits + decode.gumbel(keys, positions, self.model.vocab)
            soft = jax.nn.softmax(noisy / self.options.temperature, axis=-1)
            if self.options.estimator == "straight_through":
                hard = jax.nn.one_hot(jnp.argmax(noisy, axis=-1), self.model.vocab)
                soft = hard + soft - jax.lax.stop_gradient(soft)
            return jnp.pad(soft, ((0, 0), (0, 0), (0, 1)))  # no weight on BOS

        starts = sequence_starts(*batch["tokens"].shape)
        weights = decode.sequential(decode.Recursion(self.model, params, choose, starts, batch.get("context")))
        mask = self.mask_to_end(jnp.argmax(weights, axis=-1))
        nothing = jax.nn.one_hot(0, self.model.vocab + 1)[None, None, :]  # as in data: token 0 after the end
        return Examples(jnp.where(mask[:, :, None], weights, nothing), mask)

    def mask_to_end(self, tokens: Int[Array, "n length"]) -> Bool[Array, "n length"]:
        """True up to and including the first end token of each row."""
        return decode.mask_to_end(tokens == (NEVER if self.spec.end is None else self.spec.end))

    def loss(self, params: dict[str, Params], carry: Carry, batch: Batch, key: Array) -> Loss:
        """What the generator minimises, by its options."""
        fake = self.draw(params["generator"], batch, jax.random.fold_in(key, FAKES))
        if self.scores:
            return self.score_loss(params, carry, fake, batch, key)
        return self.pathwise_loss(params, fake, batch, key)

    def pathwise_loss(self, params: dict[str, Params], fake: Examples, batch: Batch, key: Array) -> Loss:
        """The game's cost of examples that a gradient goes through."""
        game, real = self.judge.game, real_examples(self.model, self.spec, batch)
        mask, real_logits = row_mask(batch), None
        shown_fake = self.judge.augment(fake, batch, key, AUGMENT_FAKE)
        logits = final_logits(self.judge.logits(params, shown_fake, batch), shown_fake.mask)
        if game.paired:
            shown_real = self.judge.augment(real, batch, key, AUGMENT_REAL)
            real_logits = final_logits(self.judge.logits(params, shown_real, batch), shown_real.mask)
        cost = game.cost(logits, self.options.real_prior, real_logits)
        metrics = {"logit": masked_sum(logits, mask)}
        if fake.values.ndim != 3:  # mixtures of tokens have no distances
            metrics |= compare(real.values, fake.values)
        return masked_sum(cost, mask), metrics

    def score_loss(self, params: dict[str, Params], carry: Carry, fake: Examples, batch: Batch, key: Array) -> Loss:
        """The surrogate of the score function: -sum_t A_t log Q(x_t | x_<t) of each sequence, A the advantage."""
        options, mask = self.options, row_mask(batch)
        advantage, reward = self.rewards_to_come(jax.lax.stop_gradient(params), fake, batch, key)
        nll = token_nll_of(self.model, params["generator"], fake, batch)  # without dropout, as they were drawn
        if options.entropy_weight:
            nll_to_come = jnp.flip(jnp.cumsum(jnp.flip(jax.lax.stop_gradient(nll), 1), axis=1), 1)
            advantage = advantage + options.entropy_weight * nll_to_come
        alive, rows = fake.mask & mask[:, None], len(nll)
        advantage = jnp.where(alive, advantage, 0)
        metrics = {"reward": masked_sum(reward, mask), "entropy": masked_sum(nll, alive)}
        if options.baseline == "leave_one_out":
            others = (advantage.sum(0, keepdims=True) - advantage) / max(rows - 1, 1)
            advantage = jnp.where(fake.mask, advantage - others, 0)
        elif options.baseline == "moving_average":
            metrics["to_come"] = masked_sum(advantage, alive)
            advantage = jnp.where(fake.mask, advantage - carry["baseline"], 0)
        surrogate = jnp.sum(jnp.where(alive, advantage * nll, 0), axis=1)
        metrics |= compare(real_examples(self.model, self.spec, batch).values, fake.values)
        return masked_sum(surrogate, mask), metrics

    def reward(self, logits: Float[Array, "..."]) -> Float[Array, "..."]:
        """Minus the game's cost."""
        return -self.judge.game.cost(logits, self.options.real_prior, None)

    def rewards_to_come(
        self, params: dict[str, Params], fake: Examples, batch: Batch, key: Array
    ) -> tuple[Float[Array, "n length"], Float[Array, "n"]]:
        """The reward that is still to come at each token, before any baseline, and that of each whole sequence."""
        options = self.options
        logits = self.judge.logits(params, fake, batch)
        final = final_logits(logits, fake.mask)
        total = self.reward(final)
        scale = 1 / jnp.mean(total) if self.judge.game.normalised else 1.0
        if options.reward == "sequence":
            to_come = jnp.broadcast_to(total[:, None], fake.mask.shape)
        elif options.reward == "dense":
            start = jnp.full_like(logits[:, :1], math.log(options.real_prior / (1 - options.real_prior)))
            to_come = total[:, None] - self.reward(jnp.concatenate([start, logits[:, :-1]], axis=1))
        elif options.reward == "discounted":
            rewards = jnp.where(fake.mask, 2 * jax.nn.sigmoid(logits) - 1, 0)

            def add_discounted(later, reward):
                both = reward + options.discount * later
                return both, both

            to_come = jax.lax.scan(add_discounted, jnp.zeros_like(final), rewards.T, reverse=True)[1].T
        else:
            to_come = self.rollout_rewards(params, fake, batch, key).at[:, -1].set(total)
            last = jnp.arange(to_come.shape[1])[None, :] == fake.mask.sum(1, keepdims=True) - 1
            to_come = jnp.where(last, total[:, None], to_come)
        return scale * to_come, total

    def rollout_rewards(
        self, params: dict[str, Params], fake: Examples, batch: Batch, key: Array
    ) -> Float[Array, "n length"]:
        """The mean reward of options.rollouts sequences that the generator draws after each prefix.

        SeqGAN (Yu et al., 2017): element t is an estimate of E[reward | x_<=t].
        """
        rows, length = fake.values.shape
        count, context = self.options.rollouts, batch.get("context")
        prefix = jnp.repeat(fake.values, count, axis=0)
        keys = example_keys(jax.random.fold_in(key, ROLLOUTS), batch["row"])
        keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, jnp.arange(count)).reshape(-1)
        if context is not None:
            batch = {**batch, "context": jnp.repeat(context, count, axis=0)}
        starts = sequence_starts(*prefix.shape)

        def mean_reward(t):
            draw = decode.make_chooser("inverse_cdf", jax.vmap(jax.random.fold_in, (0, None))(keys, t), length)

            def choose(logits, positions):
                given = jnp.take_along_axis(prefix, positions, axis=1)
                return jnp.where(positions <= t, given, draw(logits, positions))

            recursion = decode.Recursion(self.model, params["generator"], choose, starts, batch.get("context"))
            tokens = decode.sequential(recursion)
            mask = self.mask_to_end(tokens)
            logits = self.judge.logits(params, Examples(jnp.where(mask, tokens, 0), mask), batch)
            return self.reward(final_logits(logits, mask)).reshape(rows, count).mean(1)

        return jax.lax.map(mean_reward, jnp.arange(length)).T
