"""The critic of an adversarial game: its logits, its loss with penalties, and how well it knows its classes."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from gentrain.losses import class_weights, masked_sum
from gentrain.models.base import Critic, DensityModel, Params, SequenceModel, token_nlls
from gentrain.models.feeding import example_keys
from gentrain.objectives.adversarial.augment import augment
from gentrain.objectives.adversarial.examples import Examples, final_logits, row_mask
from gentrain.objectives.adversarial.games import Game
from gentrain.objectives.adversarial_options import Options
from gentrain.objectives.base import Batch, Loss
from gentrain.sums import Metric, Sum

METRICS = {
    "critic/bound": Metric("nats", None, "H2(pi) less the critic's loss: a lower bound on JS_pi[P||Q]"),
    "critic/calibration": Metric("probability", None, "E_M D - pi: 0 at the critic's optimum"),
    "critic/real_probability": Metric("probability", None, "mean D of real examples"),
    "critic/fake_probability": Metric("probability", None, "mean D of generated examples"),
    "critic/auc": Metric("probability", None, "a real example has a larger logit than a generated one"),
    "critic/r1": Metric("squared slope", None, "of the critic at real examples"),
    "critic/r2": Metric("squared slope", None, "of the critic at generated examples"),
}
AUGMENT_REAL, AUGMENT_FAKE = 2**32 - 3, 2**32 - 4  # their keys are apart from those of dropout, which are of rows


@dataclass(frozen=True)
class Judge:
    """What the critic makes of examples, and what it learns."""

    critic: Critic
    model: Any  # the generator's, whose log-probability is subtracted with options.known_density
    game: Game
    options: Options

    def logits(
        self, params: dict[str, Params], examples: Examples, batch: Batch, keys: Array | None = None
    ) -> Float[Array, "n prefixes"]:
        """l = log(pi / (1 - pi)) + the critic's estimate of log P/Q; in games without log-ratios the estimate alone."""
        pi = self.options.real_prior
        offset = math.log(pi / (1 - pi)) if self.game.log_ratio else 0.0
        estimate = self.critic.apply(params["critic"], examples.values, batch.get("context"), keys)
        if self.options.known_density:
            log_prob = examples.log_prob
            if log_prob is None:
                log_prob = -token_nll_of(self.model, jax.lax.stop_gradient(params["generator"]), examples, batch)
            estimate = estimate - jnp.cumsum(log_prob, axis=1)
        return offset + estimate

    def augment(self, examples: Examples, batch: Batch, key: Array, number: int) -> Examples:
        """What the critic sees of pictures: each changed at random, data and samples alike; number: of the key."""
        if not self.options.augment:
            return examples
        keys = example_keys(jax.random.fold_in(key, number), batch["row"])
        return Examples(augment(self.options.augment, examples.values, keys), examples.mask)

    def class_rows(self, batch: Batch) -> tuple[Batch, Batch]:
        """The rows whose data the critic sees, and those whose samples it sees.

        All of both by options.allocation 'weights'; by 'counts' a share of real_prior of the rows, and the rest.
        """
        if self.options.allocation == "weights":
            return batch, batch
        rows = len(batch["row"])
        count = min(max(round(rows * self.options.real_prior), 1), rows - 1)
        return jax.tree.map(lambda x: x[:count], batch), jax.tree.map(lambda x: x[count:], batch)

    def loss(
        self, params: dict[str, Params], real: Examples, fake: Examples, class_rows: tuple[Batch, Batch], key: Array
    ) -> Loss:
        """The game's loss of both classes with penalties on slopes.

        class_rows: the rows of the batch that the data come from, and those that the samples come from.
        """
        options, pi, (real_rows, fake_rows) = self.options, self.options.real_prior, class_rows
        real = self.augment(real, real_rows, key, AUGMENT_REAL)
        fake = self.augment(fake, fake_rows, key, AUGMENT_FAKE)
        real_keys, fake_keys = example_keys(key, real_rows["row"]), example_keys(key, fake_rows["row"])
        real_logits = self.logits(params, real, real_rows, real_keys)
        fake_logits = self.logits(params, fake, fake_rows, fake_keys)
        real_final, fake_final = final_logits(real_logits, real.mask), final_logits(fake_logits, fake.mask)
        real_mask, fake_mask = row_mask(real_rows), row_mask(fake_rows)
        if self.game.log_ratio and options.prefixes == "all" and real_logits.shape[1] > 1:
            real_counts, fake_counts = real.mask, fake.mask & fake_mask[:, None]
            terms = self.game.critic_loss(real_logits, fake_logits, pi, options.label_smoothing)
        else:
            real_counts, fake_counts = real_mask, fake_mask
            terms = self.game.critic_loss(real_final, fake_final, pi, options.label_smoothing)
        total = add(masked_sum(terms[0], real_counts), masked_sum(terms[1], fake_counts))
        metrics = diagnostics(real_final, fake_final, real_mask, fake_mask, pi)
        if not self.game.log_ratio:
            metrics = {"auc": metrics["auc"]}
        examples = len(real_final) + len(fake_final)
        for name, weight, penalised, rows, keys, counts in (
            ("r1", options.r1, real, real_rows, real_keys, real_counts),
            ("r2", options.r2, fake, fake_rows, fake_keys, fake_counts),
        ):
            if weight:
                squares = jnp.sum(jnp.square(self.slopes(params, penalised, rows, keys)), axis=-1)
                # An example counts as often as in the loss: once, or with each of its prefixes.
                metrics[name] = masked_sum(squares if counts.ndim == 1 else squares[:, None], counts)
                share = examples / (2 * len(squares))
                total = Sum(total.total + share * weight * metrics[name].total, total.weight)
        return total, metrics

    def slopes(
        self, params: dict[str, Params], examples: Examples, batch: Batch, keys: Array
    ) -> Float[Array, "n numbers"]:
        """The gradient of each whole example's logit with respect to the example; of a sequence, in the weights of the
        tokens that are mixed, where a token itself has weight 1."""

        def summed_logits(values):
            logits = self.logits(params, Examples(values, examples.mask), batch, keys)
            return final_logits(logits, examples.mask).sum()

        values = examples.values
        if not isinstance(self.model, SequenceModel):
            return jax.grad(summed_logits)(values).reshape(len(values), -1)
        vocab = self.model.vocab
        weights = values if values.ndim == 3 else jax.nn.one_hot(values, vocab + 1)
        slopes = jax.grad(summed_logits)(weights)[:, :, :vocab]  # no example has weight on BOS
        return slopes.reshape(len(weights), -1)


def token_nll_of(
    model: SequenceModel | DensityModel, params: Params, examples: Examples, batch: Batch, keys: Array | None = None
) -> Float[Array, "n length"]:
    """-log Q of each token in nats, 0 where the mask does not hold; of points (n, 1)."""
    if not isinstance(model, SequenceModel):
        return jnp.where(examples.mask, -model.log_prob(params, examples.values)[:, None], 0)
    tokens = examples.values
    nll = token_nlls(model, params, model.inputs(tokens), tokens, batch.get("context"), keys)
    return jnp.where(examples.mask, nll, 0)


def add(one: Sum, other: Sum) -> Sum:
    """One mean over what both are means of."""
    return Sum(one.total + other.total, one.weight + other.weight)


def prior_entropy(pi: float) -> float:
    """H2(pi), nats."""
    return -pi * math.log(pi) - (1 - pi) * math.log(1 - pi)


def diagnostics(
    real: Float[Array, "real"],
    fake: Float[Array, "fake"],
    real_mask: Bool[Array, "real"],
    fake_mask: Bool[Array, "fake"],
    pi: float,
) -> dict[str, Sum]:
    """How well a critic knows its classes, from its logits of whole examples of both: see METRICS."""
    real_weight, fake_weight = class_weights(pi, len(real), len(fake))

    def over_both(real_values, fake_values):
        """A Sum whose mean is pi E_P of the first + (1 - pi) E_Q of the second."""
        return add(masked_sum(real_weight * real_values, real_mask), masked_sum(fake_weight * fake_values, fake_mask))

    nll = over_both(jax.nn.softplus(-real), jax.nn.softplus(fake))
    real_probability, fake_probability = jax.nn.sigmoid(real), jax.nn.sigmoid(fake)
    probability = over_both(real_probability, fake_probability)
    ordered = (real[:, None] > fake[None, :]) + 0.5 * (real[:, None] == fake[None, :])
    return {
        "bound": Sum(prior_entropy(pi) * nll.weight - nll.total, nll.weight),
        "calibration": Sum(probability.total - pi * probability.weight, probability.weight),
        "real_probability": masked_sum(real_probability, real_mask),
        "fake_probability": masked_sum(fake_probability, fake_mask),
        "auc": masked_sum(ordered, real_mask[:, None] & fake_mask[None, :]),
    }
