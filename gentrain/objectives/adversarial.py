"""Adversarial training with any class prior: the dial from KL[P||Q] to KL[Q||P] (Huszár, 2015)."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain import augment, decode, health, models, plugins, schedules, spectral
from gentrain.data import Spec
from gentrain.errors import ConfigError
from gentrain.losses import critic_nll, generator_loss, masked_sum
from gentrain.metrics import Sum

NEVER = -1  # no token ends a sequence
FAKES, ROLLOUTS, SEEN_REAL, SEEN_FAKE = (2**32 - i for i in range(1, 5))  # apart from dropout's keys, of rows


class Examples(NamedTuple):
    """values: points (n, d), pictures (n, height, width, channels), tokens (n, length) int, or weights (n, length,
    vocab + 1) that mix them; mask (n, length): what is there, (n, 1) of points and pictures."""

    values: jax.Array
    mask: jax.Array


@dataclass(frozen=True)
class Adversarial:
    """A critic learns the class of examples that are real with probability pi = real_prior; a generator descends a
    divergence that the critic's logit l = log(pi / (1 - pi)) + log P/Q makes known.

    Critic: pi E_P softplus(-l) + (1 - pi) E_Q softplus(l), over every prefix of sequences where it has them. It is
    H2(pi) - JS_pi[P||Q] at its optimum, so H2(pi) less it (`bound`) is a lower bound on JS_pi. `calibration` is
    E_{M_pi} D - pi, 0 at the optimum, and `auc` the probability that a real example has a larger logit than a generated
    one. Spectral normalisation, label smoothing (of the real class: its optimum has (1 - s) pi P / M_pi in place of
    pi P / M_pi), dropout, r1, r2 and augmentation all move D from that optimum, and the generator from JS_pi with it.
    Generator, by objective.generator_loss (losses.generator_loss): 'js' JS_pi / (pi (1 - pi)), the dial; 'reverse_kl'
    KL[Q||P] and 'forward_kl' KL[P||Q] (weights normalised over the batch) for every pi; 'non_saturating'
    KL[M_pi||P] / (1 - pi), which turns the dial the wrong way. 'hinge' and 'relativistic' have critics of their own,
    with no class prior to turn.

    Points and pictures are differentiated through. Sequences have three estimators: 'score', -E A_t grad log
    Q(x_t | x_<t) with the rewards of objective.reward and a baseline; 'straight_through' and 'gumbel_softmax', through
    mixtures of tokens, biased. With a critic of prefixes, w_t = sigmoid(l_t) is the probability that a prefix is real,
    and the 'dense' rewards of 'js', log((1 - w_{t-1}) / (1 - w_t)) / pi, are those of the chain rule JS_pi[P||Q] =
    sum_t E_{M_pi} JS_{w_{t-1}}[P(. | x_<t)||Q(. | x_<t)], summed to the end: unbiased for the whole sequence's JS_pi.
    With objective.known_density the critic of prefixes is a language model R, and log R/Q its estimate: what a sequence
    model knows of itself the critic need not learn, and its optimum R = P does not move as the generator does.
    Huszár (2015); Goodfellow et al. (2014); Mohamed and Lakshminarayanan (2016).
    """

    model: Any  # models.SequenceModel, Sampler or DensityModel
    critic: models.Critic
    spec: Spec
    options: ConfigDict  # config.objective
    steps: int
    players: tuple[str, ...]
    splittable: bool

    def init(self, key, batch):
        params = {"critic": self.critic.init(jax.random.fold_in(key, 1)), "generator": self.model.init(key)}
        key = jax.random.fold_in(key, 2)
        vectors = spectral.start(params["critic"], key) if self.options.spectral_norm else {}
        return params, {"baseline": jnp.zeros(()), "spectral": vectors}

    def loss(self, player, params, carry, batch, key, step):
        params = params | {"critic": spectral.normalised(params["critic"], carry["spectral"])}
        if player == "critic":
            return self.critic_loss(params, batch, key)
        total, extra = self.generator_loss(params, carry, batch, key)
        first, final = self.options.likelihood_weight, self.options.likelihood_final
        if first or final:
            weight = schedules.between(first, final, self.steps)(step)
            keys = models.example_keys(key, batch["row"])
            nll = self.nll(params["generator"], self.reals(batch), batch.get("context"), keys)
            extra["nll"] = Sum(nll.sum(), jnp.sum(batch["mask"]).astype(jnp.float32))
            total = Sum(total.total + weight * extra["nll"].total, total.weight)
        return total, extra

    # --- Critic -----------------------------------------------------------------------------------------------------

    def critic_loss(self, params, batch, key):
        options, pi = self.options, self.options.real_prior
        of_real, of_fake = self.classes(batch)
        fake = jax.lax.stop_gradient(self.fakes(params["generator"], of_fake, jax.random.fold_in(key, FAKES)))
        real, fake = self.seen(self.reals(of_real), of_real, key, SEEN_REAL), self.seen(fake, of_fake, key, SEEN_FAKE)
        keys = lambda part: models.example_keys(key, part["row"])
        each_real = self.logits(params, real, of_real, keys(of_real))
        each_fake = self.logits(params, fake, of_fake, keys(of_fake))
        whole_real, whole_fake = last(each_real, real.mask), last(each_fake, fake.mask)
        counted = there(of_real), there(of_fake)
        if options.generator_loss == "hinge":
            losses = hinge(whole_real, whole_fake, pi)
        elif options.generator_loss == "relativistic":
            losses = 2 * jax.nn.softplus(whole_fake - whole_real), jnp.zeros_like(whole_real)
        elif options.prefixes == "all" and each_real.shape[1] > 1:
            losses = critic_nll(each_real, each_fake, pi, options.label_smoothing)
            counted = real.mask, fake.mask & counted[1][:, None]
        else:
            losses = critic_nll(whole_real, whole_fake, pi, options.label_smoothing)
        parts = [masked_sum(values, mask) for values, mask in zip(losses, counted, strict=True)]
        total = Sum(parts[0].total + parts[1].total, parts[0].weight + parts[1].weight)
        extra = judged(whole_real, whole_fake, there(of_real), there(of_fake), pi)
        if options.generator_loss in ("hinge", "relativistic"):
            extra = {"auc": extra["auc"]}  # their logits are not log-ratios
        sides = ("r1", options.r1, real, of_real), ("r2", options.r2, fake, of_fake)
        for name, weight, each, part in sides:
            if weight:
                penalty = jnp.sum(jnp.square(self.slopes(params, each, part, keys(part))), axis=-1)
                extra[name] = masked_sum(penalty, there(part))
                share = (len(whole_real) + len(whole_fake)) / (2 * len(penalty))
                total = Sum(total.total + share * weight * extra[name].total, total.weight)
        return total, extra

    def classes(self, batch):
        """The rows whose data the critic sees, and those whose samples: all of both, or real_prior of them and the
        rest."""
        if self.options.allocation == "weights":
            return batch, batch
        rows = len(batch["row"])
        count = min(max(round(rows * self.options.real_prior), 1), rows - 1)
        return jax.tree.map(lambda x: x[:count], batch), jax.tree.map(lambda x: x[count:], batch)

    def seen(self, examples: Examples, batch, key, number) -> Examples:
        """What the critic sees of pictures: each changed at random, data and samples alike."""
        if not self.options.augment:
            return examples
        keys = models.example_keys(jax.random.fold_in(key, number), batch["row"])
        return Examples(augment.augment(self.options.augment, examples.values, keys), examples.mask)

    def reals(self, batch) -> Examples:
        if isinstance(self.model, models.SequenceModel):
            return Examples(batch["tokens"], batch["mask"])
        values = models.pictures(batch["tokens"], self.spec) if self.spec.shape else batch["points"]
        return Examples(values, there(batch)[:, None])

    def logits(self, params, examples: Examples, batch, keys=None):
        """l = log(pi / (1 - pi)) + the critic's estimate of log P/Q: (n, prefixes)."""
        pi = self.options.real_prior
        offset = 0.0 if self.options.generator_loss in ("hinge", "relativistic") else math.log(pi / (1 - pi))
        estimate = self.critic.apply(params["critic"], examples.values, batch.get("context"), keys)
        if self.options.known_density:
            own = jax.lax.stop_gradient(params["generator"])
            estimate = estimate - jnp.cumsum(-self.nll(own, examples, batch.get("context")), axis=1)
        return offset + estimate

    def slopes(self, params, examples: Examples, batch, keys):
        """The gradient of each whole example's logit in the example: (n, …) flattened."""
        of = lambda values: last(self.logits(params, Examples(values, examples.mask), batch, keys), examples.mask).sum()
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
            own = jax.lax.stop_gradient(params)
            drawn = decode.sample(self.model, own, keys, length, end=self.spec.end, context=context)
            return Examples(drawn.tokens, drawn.mask)
        begins = models.first(*batch["tokens"].shape)
        hard = self.options.estimator == "straight_through"

        def choose(logits, positions):
            noisy = logits + decode.gumbel(keys, positions, self.model.vocab)
            soft = jax.nn.softmax(noisy / self.options.temperature, axis=-1)
            one = jax.nn.one_hot(jnp.argmax(noisy, axis=-1), self.model.vocab)
            soft = one + soft - jax.lax.stop_gradient(soft) if hard else soft
            return jnp.pad(soft, ((0, 0), (0, 0), (0, 1)))

        weights = decode.scanned(self.model, params, choose, begins, context)
        return Examples(
            weights, decode.until(jnp.argmax(weights, axis=-1) == (NEVER if self.spec.end is None else self.spec.end))
        )

    def generator_loss(self, params, carry, batch, key):
        options = self.options
        fakes = self.fakes(params["generator"], batch, jax.random.fold_in(key, FAKES))
        if isinstance(self.model, models.SequenceModel) and options.estimator == "score":
            return self.score(params, carry, fakes, batch, key)
        real, fake = self.reals(batch), self.seen(fakes, batch, key, SEEN_FAKE)
        logits, compared = last(self.logits(params, fake, batch), fake.mask), None
        if options.generator_loss == "relativistic":
            real = self.seen(real, batch, key, SEEN_REAL)
            compared = last(self.logits(params, real, batch), real.mask)
        cost = costs(options.generator_loss, logits, options.real_prior, compared)
        signs = {} if fakes.values.ndim == 3 else health.compare(self.reals(batch).values, fakes.values)
        return masked_sum(cost, there(batch)), {"logit": masked_sum(logits, there(batch)), **signs}

    def score(self, params, carry, fakes: Examples, batch, key):
        """The score-function surrogate: -sum_t A_t log Q(x_t | x_<t) of each sequence."""
        options, own = self.options, params["generator"]
        advantage, reward = self.advantages(jax.lax.stop_gradient(params), fakes, batch, key)
        nll = self.nll(own, fakes, batch.get("context"), models.example_keys(key, batch["row"]))
        if options.entropy_weight:
            surprise = jnp.flip(jnp.cumsum(jnp.flip(jax.lax.stop_gradient(nll), 1), axis=1), 1)
            advantage = advantage + options.entropy_weight * surprise
        alive, rows = fakes.mask & there(batch)[:, None], len(nll)
        advantage = jnp.where(alive, advantage, 0)
        if options.baseline == "leave_one_out":
            others = (advantage.sum(0, keepdims=True) - advantage) / max(rows - 1, 1)
            advantage = jnp.where(fakes.mask, advantage - others, 0)
        elif options.baseline == "moving_average":
            advantage = jnp.where(fakes.mask, advantage - carry["baseline"], 0)
        surrogate = jnp.sum(jnp.where(alive, advantage * nll, 0), axis=1)
        extra = {"reward": masked_sum(reward, there(batch)), "entropy": masked_sum(nll, alive)}
        extra |= health.compare(self.reals(batch).values, fakes.values)
        return masked_sum(surrogate, there(batch)), extra

    def advantages(self, params, fakes: Examples, batch, key):
        """The reward that is still to come at each token, before any baseline: (n, length), and of each whole: (n,)."""
        options = self.options
        logits = self.logits(params, fakes, batch)
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
        return scale * found, total

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
            tokens = decode.scanned(model, params["generator"], choose, begins, context)
            mask = decode.until(tokens == (NEVER if self.spec.end is None else self.spec.end))
            drawn = Examples(jnp.where(mask, tokens, 0), mask)
            logits = self.logits(params, drawn, batch | ({"context": context} if context is not None else {}))
            return reward(last(logits, mask)).reshape(rows, count).mean(1)

        return jax.lax.map(after, jnp.arange(length)).T

    def nll(self, params, examples: Examples, context, keys=None):
        """-log Q, nats a token or point, 0 under the mask: (n, length)."""
        if not isinstance(self.model, models.SequenceModel):
            return jnp.where(examples.mask, -self.model.log_prob(params, examples.values)[:, None], 0)
        inputs = models.shift_right(examples.values, self.model.vocab, self.spec.end)
        nll = models.token_nlls(self.model, params, inputs, examples.values, context, keys)
        return jnp.where(examples.mask, nll, 0)

    def remember(self, carry, metrics, params):
        """The moving average of rewards, and the vectors of spectral normalisation, a round for each critic step."""
        vectors = spectral.refreshed(params["critic"], carry["spectral"], self.options.critic_steps)
        if "generator/reward" not in metrics:
            return carry | {"spectral": vectors}
        reward = metrics["generator/reward"]
        decay = self.options.baseline_decay
        mean = reward.total / jnp.maximum(reward.weight, 1)
        return {"baseline": decay * carry["baseline"] + (1 - decay) * mean, "spectral": vectors}


def there(batch):
    """(n,) bool: rows that only fill up a batch are in neither class."""
    return batch["mask"].reshape(len(batch["row"]), -1)[:, 0]


def last(logits, mask):
    """The logit of each whole example: (n,)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    at = jnp.maximum(mask.sum(1, keepdims=True) - 1, 0)
    return jnp.take_along_axis(logits, at, axis=1)[:, 0]


def entropy(pi: float) -> float:
    """H2(pi), nats."""
    return -pi * math.log(pi) - (1 - pi) * math.log(1 - pi)


def judged(real, fake, real_there, fake_there, pi: float) -> dict[str, Sum]:
    """How well a critic knows its classes, from its logits on whole examples of both."""
    n = len(real) + len(fake)
    weights = pi * n / len(real), (1 - pi) * n / len(fake)
    rows = jnp.sum(real_there) + jnp.sum(fake_there)

    def over_classes(ours, theirs):  # the mean is pi E_P ours + (1 - pi) E_Q theirs
        parts = masked_sum(weights[0] * ours, real_there), masked_sum(weights[1] * theirs, fake_there)
        return Sum(parts[0].total + parts[1].total, rows.astype(jnp.float32))

    nll = over_classes(jax.nn.softplus(-real), jax.nn.softplus(fake))
    likely_real, likely_fake = jax.nn.sigmoid(real), jax.nn.sigmoid(fake)
    likely = over_classes(likely_real, likely_fake)
    ordered = (real[:, None] > fake[None, :]) + 0.5 * (real[:, None] == fake[None, :])
    return {
        "bound": Sum(entropy(pi) * nll.weight - nll.total, nll.weight),
        "calibration": Sum(likely.total - pi * likely.weight, likely.weight),
        "real_probability": masked_sum(likely_real, real_there),
        "fake_probability": masked_sum(likely_fake, fake_there),
        "auc": masked_sum(ordered, real_there[:, None] & fake_there[None, :]),
    }


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
    judge = lambda: models.prefix_critic(room.build(config.critic, spec), normalised=options.known_density)
    critic = room.critic(config.critic, spec) if own else judge()
    sequences = isinstance(model, models.SequenceModel)
    if options.known_density and (own or not sequences or options.estimator != "score"):
        raise ConfigError(
            "objective.known_density subtracts the generator's log-probability of each token: it needs model.name and"
            f" critic.name of sequences and estimator='score', not {config.model.name!r} and {config.critic.name!r}"
        )
    if sequences and options.reward in ("dense", "discounted") and own:
        raise ConfigError(
            f"objective.reward={options.reward!r} needs a critic of prefixes, and critic.name={config.critic.name!r}"
            " sees whole sequences: take lstm, transformer or tabular, or reward='sequence'"
        )
    augment.check(options.augment)
    if sequences and options.augment:
        raise ConfigError(f"objective.augment changes pictures, and model.name={config.model.name!r} makes sequences")
    if not hasattr(model, "log_prob") and not sequences and (options.likelihood_weight or options.likelihood_final):
        raise ConfigError(f"objective.likelihood_weight needs a density, and model.name={config.model.name!r} has none")
    alone = options.generator_loss != "forward_kl" and not (sequences and options.baseline == "leave_one_out")
    players = ("critic",) * options.critic_steps + ("generator",)
    return Adversarial(model, critic, spec, options, config.steps, players, alone)
