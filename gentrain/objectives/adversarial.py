"""Adversarial training with any class prior: the dial from KL[P||Q] to KL[Q||P] (Huszár, 2015)."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain import decode, models, plugins, schedules
from gentrain.data import Spec
from gentrain.errors import ConfigError
from gentrain.losses import critic_nll, generator_loss, masked_sum, token_nll
from gentrain.metrics import Sum

NEVER = -1  # no token ends a sequence
FAKES, ROLLOUTS = 2**32 - 1, 2**32 - 2  # apart from the keys of dropout, which are of rows


class Examples(NamedTuple):
    """values: points (n, d), tokens (n, length) int, or weights (n, length, vocab + 1) that mix them; mask (n, length):
    what is there, (n, 1) of points."""

    values: jax.Array
    mask: jax.Array


@dataclass(frozen=True)
class Adversarial:
    """A critic learns the class of examples that are real with probability pi = real_prior; a generator descends a
    divergence that the critic's logit l = log(pi / (1 - pi)) + log P/Q makes known.

    Critic: pi E_P softplus(-l) + (1 - pi) E_Q softplus(l), over every prefix of sequences where it has them. It is
    H2(pi) - JS_pi[P||Q] at its optimum, so H2(pi) less it (`bound`) is a lower bound on JS_pi.
    Generator, by objective.generator_loss (losses.generator_loss): 'js' JS_pi / (pi (1 - pi)), the dial; 'reverse_kl'
    KL[Q||P] and 'forward_kl' KL[P||Q] (weights normalised over the batch) for every pi; 'non_saturating'
    KL[M_pi||P] / (1 - pi), which turns the dial the wrong way. 'hinge' and 'relativistic' have critics of their own,
    with no class prior to turn.

    Points are differentiated through. Sequences have three estimators: 'score', -E A_t grad log Q(x_t | x_<t) with the
    rewards of objective.reward and a baseline; 'straight_through' and 'gumbel_softmax', through mixtures of tokens,
    biased. Huszár (2015); Goodfellow et al. (2014); Mohamed and Lakshminarayanan (2016).
    """

    model: Any  # models.SequenceModel, Sampler or DensityModel
    critic: models.Critic
    end: int | None
    options: ConfigDict  # config.objective
    steps: int
    players: tuple[str, ...]
    splittable: bool

    def init(self, key, batch):
        params = {"critic": self.critic.init(jax.random.fold_in(key, 1)), "generator": self.model.init(key)}
        return params, {"baseline": jnp.zeros(())}

    def loss(self, player, params, carry, batch, key, step):
        if player == "critic":
            return self.critic_loss(params, batch, key)
        total, extra = self.generator_loss(params, carry, batch, key)
        first, final = self.options.likelihood_weight, self.options.likelihood_final
        if first or final:
            weight = schedules.between(first, final, self.steps)(step)
            nll = self.nll(params["generator"], batch, models.example_keys(key, batch["row"]))
            extra["nll"] = Sum(nll.sum(), jnp.sum(batch["mask"]).astype(jnp.float32))
            total = Sum(total.total + weight * extra["nll"].total, total.weight)
        return total, extra

    # --- Critic -----------------------------------------------------------------------------------------------------

    def critic_loss(self, params, batch, key):
        options, pi = self.options, self.options.real_prior
        fake = jax.lax.stop_gradient(self.fakes(params["generator"], batch, jax.random.fold_in(key, FAKES)))
        real = reals(batch)
        keys = models.example_keys(key, batch["row"])
        each_real, each_fake = (self.logits(params["critic"], each, batch, keys) for each in (real, fake))
        whole_real, whole_fake = last(each_real, real.mask), last(each_fake, fake.mask)
        there = real.mask[:, 0]  # rows that only fill up a batch are in neither class
        if options.generator_loss == "hinge":
            losses, counted = hinge(whole_real, whole_fake, pi), (there, there)
        elif options.generator_loss == "relativistic":
            losses, counted = (jax.nn.softplus(whole_fake - whole_real), jnp.zeros_like(whole_real)), (there, there)
        elif options.prefixes == "all" and each_real.shape[1] > 1:
            losses, counted = critic_nll(each_real, each_fake, pi), (real.mask, fake.mask & there[:, None])
        else:
            losses, counted = critic_nll(whole_real, whole_fake, pi), (there, there)
        parts = [masked_sum(values, mask) for values, mask in zip(losses, counted, strict=True)]
        total = Sum(parts[0].total + parts[1].total, parts[0].weight + parts[1].weight)
        likely_real, likely_fake = jax.nn.sigmoid(whole_real), jax.nn.sigmoid(whole_fake)
        nll = pi * jax.nn.softplus(-whole_real) + (1 - pi) * jax.nn.softplus(whole_fake)
        extra = {
            "bound": masked_sum(entropy(pi) - nll, there),
            "calibration": masked_sum(pi * likely_real + (1 - pi) * likely_fake - pi, there),
            "real_probability": masked_sum(likely_real, there),
            "fake_probability": masked_sum(likely_fake, there),
        }
        for name, weight, each in (("r1", options.r1, real), ("r2", options.r2, fake)):
            if weight:
                penalty = jnp.sum(jnp.square(self.slopes(params["critic"], each, batch, keys)), axis=-1)
                extra[name] = masked_sum(penalty, there)
                total = Sum(total.total + weight * extra[name].total, total.weight)
        return total, extra

    def logits(self, critic, examples: Examples, batch, keys=None):
        """l = log(pi / (1 - pi)) + the critic's estimate of log P/Q: (n, prefixes)."""
        pi = self.options.real_prior
        offset = 0.0 if self.options.generator_loss in ("hinge", "relativistic") else math.log(pi / (1 - pi))
        return offset + self.critic.apply(critic, examples.values, batch.get("context"), keys)

    def slopes(self, critic, examples: Examples, batch, keys):
        """The gradient of each whole example's logit in the example: (n, …) flattened."""
        of = lambda values: last(self.logits(critic, Examples(values, examples.mask), batch, keys), examples.mask).sum()
        return jax.grad(of)(examples.values).reshape(len(examples.values), -1)

    # --- Generator --------------------------------------------------------------------------------------------------

    def fakes(self, params, batch, key) -> Examples:
        """As many examples of the generator as the batch has rows, from keys of those rows."""
        keys, context = models.example_keys(key, batch["row"]), batch.get("context")
        if not isinstance(self.model, models.SequenceModel):
            values = self.model.sample(params, keys, context)
            return Examples(values, jnp.ones((len(values), 1), bool))
        length = batch["tokens"].shape[1]
        if self.options.estimator == "score":
            drawn = decode.sample(self.model, params, keys, length, end=self.end, context=context)
            return Examples(drawn.tokens, drawn.mask)
        begins = models.first(*batch["tokens"].shape)
        hard = self.options.estimator == "straight_through"

        def choose(logits, positions):
            noisy = logits + decode.gumbel(keys, positions, self.model.vocab)
            soft = jax.nn.softmax(noisy / self.options.temperature, axis=-1)
            one = jax.nn.one_hot(jnp.argmax(noisy, axis=-1), self.model.vocab)
            soft = one + soft - jax.lax.stop_gradient(soft) if hard else soft
            return jnp.pad(soft, ((0, 0), (0, 0), (0, 1)))

        weights = decode.scanned(self.model, params, choose, begins, context)[1]
        return Examples(
            weights, decode.until(jnp.argmax(weights, axis=-1) == (NEVER if self.end is None else self.end))
        )

    def generator_loss(self, params, carry, batch, key):
        options = self.options
        fakes = self.fakes(params["generator"], batch, jax.random.fold_in(key, FAKES))
        if isinstance(self.model, models.SequenceModel) and options.estimator == "score":
            return self.score(params, carry, fakes, batch, key)
        logits = last(self.logits(params["critic"], fakes, batch), fakes.mask)
        real = None
        if options.generator_loss == "relativistic":
            own = reals(batch)
            real = last(self.logits(params["critic"], own, batch), own.mask)
        cost = costs(options.generator_loss, logits, options.real_prior, real)
        there = batch["mask"].reshape(len(logits), -1)[:, 0]
        return masked_sum(cost, there), {"logit": masked_sum(logits, there)}

    def score(self, params, carry, fakes: Examples, batch, key):
        """The score-function surrogate: -sum_t A_t log Q(x_t | x_<t) of each sequence."""
        options, model, own = self.options, self.model, params["generator"]
        assert isinstance(model, models.SequenceModel)
        fakes = jax.lax.stop_gradient(fakes)
        advantage, reward = self.advantages(params, fakes, batch, key)
        inputs = models.shift_right(fakes.values, model.vocab, None)
        keys = models.example_keys(key, batch["row"])
        nll = token_nll(model.apply(own, inputs, batch.get("context"), keys), fakes.values)[0]
        nll = jnp.where(fakes.mask, nll, 0)
        if options.entropy_weight:
            surprise = jnp.flip(jnp.cumsum(jnp.flip(jax.lax.stop_gradient(nll), 1), axis=1), 1)
            advantage = advantage + options.entropy_weight * surprise
        there, rows = batch["mask"][:, :1], len(nll)
        advantage = jnp.where(fakes.mask & there, advantage, 0)
        if options.baseline == "leave_one_out":
            others = (advantage.sum(0, keepdims=True) - advantage) / max(rows - 1, 1)
            advantage = jnp.where(fakes.mask, advantage - others, 0)
        elif options.baseline == "moving_average":
            advantage = jnp.where(fakes.mask, advantage - carry["baseline"], 0)
        total = jnp.sum(jnp.where(there, jax.lax.stop_gradient(advantage) * nll, 0))
        extra = {"reward": masked_sum(reward, there[:, 0]), "entropy": masked_sum(nll, fakes.mask & there)}
        return Sum(total, jnp.sum(there).astype(jnp.float32)), extra

    def advantages(self, params, fakes: Examples, batch, key):
        """The reward that is still to come at each token, before any baseline: (n, length), and of each whole: (n,)."""
        options = self.options
        logits = self.logits(params["critic"], fakes, batch)
        whole = last(logits, fakes.mask)
        reward = lambda logits: -costs(options.generator_loss, logits, options.real_prior)
        total = reward(whole)
        scale = 1 / jnp.mean(total) if options.generator_loss == "forward_kl" else 1.0
        if options.reward == "sequence":
            found = jnp.broadcast_to(total[:, None], fakes.mask.shape)
        elif options.reward == "dense":
            start = jnp.full_like(logits[:, :1], math.log(options.real_prior / (1 - options.real_prior)))
            found = total[:, None] - reward(jnp.concatenate([start, logits[:, :-1]], axis=1))
        elif options.reward == "discounted":
            each = jnp.where(fakes.mask, 2 * jax.nn.sigmoid(logits) - 1, 0)
            back = lambda later, now: (now + options.discount * later,) * 2
            found = jax.lax.scan(back, jnp.zeros_like(whole), each.T, reverse=True)[1].T
        else:
            found = self.rolled_out(params, fakes, batch, key, reward).at[:, -1].set(total)
            final = jnp.arange(found.shape[1])[None, :] == fakes.mask.sum(1, keepdims=True) - 1
            found = jnp.where(final, total[:, None], found)
        return jax.lax.stop_gradient(scale * found), jax.lax.stop_gradient(total)

    def rolled_out(self, params, fakes: Examples, batch, key, reward):
        """The mean reward of objective.rollouts sequences that the generator draws after each prefix: (n, length).

        SeqGAN (Yu et al., 2017): element t is an estimate of E[reward | x_<=t].
        """
        rows, length = fakes.values.shape
        count, model, context = self.options.rollouts, self.model, batch.get("context")
        many = lambda x: jnp.repeat(x, count, axis=0)
        fixed, keys = many(fakes.values), models.example_keys(jax.random.fold_in(key, ROLLOUTS), batch["row"])
        keys = jax.vmap(lambda key: jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(count)))(keys).reshape(-1)
        context = None if context is None else many(context)

        def after(t):
            own = decode.chooser("inverse_cdf", jax.vmap(jax.random.fold_in, (0, None))(keys, t), length)
            begins = models.first(*fixed.shape)
            choose = lambda logits, positions: jnp.where(
                positions <= t, jnp.take_along_axis(fixed, positions, axis=1), own(logits, positions)
            )
            tokens = decode.scanned(model, params["generator"], choose, begins, context)[1]
            mask = decode.until(tokens == (NEVER if self.end is None else self.end))
            drawn = Examples(jnp.where(mask, tokens, 0), mask)
            logits = self.logits(params["critic"], drawn, batch | ({"context": context} if context is not None else {}))
            return reward(last(logits, mask)).reshape(rows, count).mean(1)

        return jax.lax.map(after, jnp.arange(length)).T

    def nll(self, params, batch, keys):
        """-log Q of the data, nats a token or point, 0 under the mask."""
        if "points" in batch:
            return jnp.where(batch["mask"], -self.model.log_prob(params, batch["points"]), 0)
        inputs = models.shift_right(batch["tokens"], self.model.vocab, self.end)
        nll = token_nll(self.model.apply(params, inputs, batch.get("context"), keys), batch["tokens"])[0]
        return jnp.where(batch["mask"], nll, 0)

    def remember(self, carry, metrics):
        """The moving average of rewards."""
        if "generator/reward" not in metrics:
            return carry
        reward = metrics["generator/reward"]
        decay = self.options.baseline_decay
        mean = reward.total / jnp.maximum(reward.weight, 1)
        return {"baseline": decay * carry["baseline"] + (1 - decay) * mean}


def reals(batch) -> Examples:
    return Examples(batch.get("points", batch.get("tokens")), batch["mask"].reshape(len(batch["row"]), -1))


def last(logits, mask):
    """The logit of each whole example: (n,)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    at = jnp.maximum(mask.sum(1, keepdims=True) - 1, 0)
    return jnp.take_along_axis(logits, at, axis=1)[:, 0]


def entropy(pi: float) -> float:
    """H2(pi), nats."""
    return -pi * math.log(pi) - (1 - pi) * math.log(1 - pi)


def hinge(real, fake, pi: float):
    """2 pi max(0, 1 - l) of real examples and 2 (1 - pi) max(0, 1 + l) of generated ones (Lim and Ye, 2017)."""
    return 2 * pi * jax.nn.relu(1 - real), 2 * (1 - pi) * jax.nn.relu(1 + fake)


def costs(name: str, logits, pi: float, real=None):
    """What the generator minimises for each of its examples, from their logits (and, relativistic, those of real
    ones)."""
    if name == "hinge":
        return -logits
    if name == "relativistic":
        return jax.nn.softplus(real - logits)
    return generator_loss(logits, name, pi)


def build(config: ConfigDict, spec: Spec) -> Adversarial:
    """Raises ConfigError for options that the model or the critic cannot serve."""
    options = config.objective
    model = plugins.load("models", config.model.name).build(config.model, spec)
    room = plugins.load("models", config.critic.name)
    own = hasattr(room, "critic")
    critic = room.critic(config.critic, spec) if own else models.prefix_critic(room.build(config.critic, spec))
    sequences = isinstance(model, models.SequenceModel)
    if sequences and options.reward in ("dense", "discounted") and own:
        raise ConfigError(
            f"objective.reward={options.reward!r} needs a critic of prefixes, and critic.name={config.critic.name!r}"
            " sees whole sequences: take lstm, transformer or tabular, or reward='sequence'"
        )
    if not hasattr(model, "log_prob") and not sequences and (options.likelihood_weight or options.likelihood_final):
        raise ConfigError(f"objective.likelihood_weight needs a density, and model.name={config.model.name!r} has none")
    alone = options.generator_loss != "forward_kl" and not (sequences and options.baseline == "leave_one_out")
    players = ("critic",) * options.critic_steps + ("generator",)
    return Adversarial(model, critic, spec.end, options, config.steps, players, alone)
