"""Adversarial training with any class prior: the dial from KL[P||Q] to KL[Q||P] (Huszár, 2015).

games: one row a loss. critic: logits, loss, penalties, diagnostics. estimators: how the generator is differentiated.
spectral, augment: what else is done to a critic and to what it sees.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain import plugins, schedules, worlds
from gentrain.datasets.spec import Spec
from gentrain.models.base import DensityModel, Sampler, SequenceModel, prefix_critic
from gentrain.models.feeding import example_keys
from gentrain.objectives.adversarial import critic, estimators, spectral
from gentrain.objectives.adversarial.critic import Judge, token_nll_of
from gentrain.objectives.adversarial.estimators import FAKES, Estimator
from gentrain.objectives.adversarial.examples import real_examples
from gentrain.objectives.adversarial.games import GAMES
from gentrain.objectives.adversarial_options import Options
from gentrain.objectives.base import Alarm, Objective, Optimum, generator_of
from gentrain.objectives.diagnostics import COLLAPSE, DIAGNOSTICS
from gentrain.objectives.optima import factorised_optimum
from gentrain.sums import Metric, Sum

METRICS = (
    DIAGNOSTICS
    | critic.METRICS
    | estimators.METRICS
    | {"generator/nll": Metric("nats/token", "lower", "negative log-likelihood of the training batches")}
)


def saturated(means: Mapping[str, float]) -> bool:
    """Whether the critic tells nearly every sample from the data."""
    return means.get("critic/auc", 0.5) > 0.999


def at_chance(means: Mapping[str, float]) -> bool:
    """Whether the critic tells nothing apart that differs."""
    return means.get("critic/auc", 1) < 0.52 and means.get("generator/apart", 0) > 0.02


def above_chance(means: Mapping[str, float]) -> bool:
    """Whether the critic is worse than one that always answers the prior, by more than noise or label smoothing."""
    return means.get("critic/bound", 0) < -0.05


SATURATED = Alarm(
    "saturated",
    saturated,
    "saturated: the critic tells nearly every sample from the data (auc {critic/auc:.4f}), so its slope says little;"
    " for text try shorter pieces (data.length) or objective.name='cooperative'; else a lower adversarial.critic_rate,"
    " fewer critic_steps, r1 and r2, or critic.dropout",
)
CHANCE = Alarm(
    "chance",
    at_chance,
    "chance: the critic tells nothing apart (auc {critic/auc:.3f}) though samples and data differ (apart"
    " {generator/apart:.2f}): it has stopped learning, this is no success; try a higher adversarial.critic_rate, or for"
    " text shorter pieces (data.length) or objective.name='cooperative'",
)
ABOVE_CHANCE = Alarm(
    "above_chance",
    above_chance,
    "above_chance: to answer the prior always would cost the critic less, its bound is {critic/bound:.3f} nats, so it"
    " misleads the generator; from a likelihood run start with adversarial.known_density and a critic like the model"
    " (init_from copies it); else try shorter pieces of text (data.length), objective.name='cooperative', or a lower"
    " optimizer.learning_rate",
)


@dataclass(frozen=True)
class Adversarial(Objective):
    """A critic tells data from samples, and a generator descends a divergence that the critic's logit makes known.

    An example is real with probability pi = real_prior, and the best logit is l = log(pi / (1 - pi)) + log P/Q.
    Critic: pi E_P softplus(-l) + (1 - pi) E_Q softplus(l), over every prefix of sequences where it has them. It is
    H2(pi) - JS_pi[P||Q] at its optimum, so H2(pi) less it (`bound`) is a lower bound on JS_pi. `calibration` is
    E_{M_pi} D - pi, 0 at the optimum, and `auc` the probability that a real example has a larger logit than a generated
    one. Spectral normalisation, label smoothing (of the real class: its optimum has (1 - s) pi P / M_pi in place of
    pi P / M_pi), dropout, r1, r2 and augmentation all move D from that optimum, and the generator from JS_pi with it.
    Generator, by options.generator_loss (games.py, losses.generator_loss): 'js' JS_pi / (pi (1 - pi)), the dial;
    'reverse_kl' KL[Q||P] and 'forward_kl' KL[P||Q] (of sequences with weights normalised over the batch) for every pi;
    'non_saturating' KL[M_pi||P] / (1 - pi), which turns the dial the wrong way. 'hinge' and 'relativistic' have critics
    of their own, whose logits are no log-ratios.

    Points and pictures are differentiated through. Sequences have three estimators: 'score', -E A_t grad log
    Q(x_t | x_<t) with the rewards of options.reward and a baseline; 'straight_through' and 'gumbel_softmax', through
    mixtures of tokens, biased. With a critic of prefixes, w_t = sigmoid(l_t) is the probability that a prefix is real,
    and the 'dense' rewards of 'js', log((1 - w_{t-1}) / (1 - w_t)) / pi, are those of the chain rule JS_pi[P||Q] =
    sum_t E_{M_pi} JS_{w_{t-1}}[P(. | x_<t)||Q(. | x_<t)], summed to the end: unbiased for the whole sequence's JS_pi.
    With options.known_density the critic of prefixes is a language model R, and log R/Q its estimate: what a sequence
    model knows of itself the critic need not learn, and its optimum R = P does not move as the generator does.
    Huszár (2015); Goodfellow et al. (2014); Mohamed and Lakshminarayanan (2016).
    """

    model: SequenceModel | Sampler | DensityModel
    judge: Judge
    estimator: Estimator
    spec: Spec
    options: Options
    steps: int
    players: tuple[str, ...]
    splittable: bool
    alarms = (COLLAPSE, SATURATED, CHANCE, ABOVE_CHANCE)

    def init(self, key, batch):
        network = self.judge.critic
        params = {"critic": network.init(jax.random.fold_in(key, 1)), "generator": self.model.init(key)}
        key = jax.random.fold_in(key, 2)
        vectors = spectral.initial_vectors(params["critic"], key) if self.options.spectral_norm else {}
        return params, {"baseline": jnp.zeros(()), "spectral": vectors}

    def loss(self, player, params, carry, batch, key, step):
        params = params | {"critic": spectral.normalise(params["critic"], carry["spectral"])}
        if player == "critic":
            return self.critic_loss(params, batch, key)
        total, metrics = self.estimator.loss(params, carry, batch, key)
        first, final = self.options.likelihood_weight, self.options.likelihood_final
        if first or final:
            weight = schedules.between(first, final, self.steps)(step)
            assert not isinstance(self.model, Sampler)  # which knows no log-probabilities: its config is refused
            real, keys = real_examples(self.model, self.spec, batch), example_keys(key, batch["row"])
            nll = token_nll_of(self.model, params["generator"], real, batch, keys)
            metrics["nll"] = Sum(nll.sum(), jnp.sum(batch["mask"]).astype(jnp.float32))
            total = Sum(total.total + weight * metrics["nll"].total, total.weight)
        return total, metrics

    def critic_loss(self, params, batch, key):
        real_rows, fake_rows = self.judge.class_rows(batch)
        fake = self.estimator.draw(params["generator"], fake_rows, jax.random.fold_in(key, FAKES))
        fake = jax.lax.stop_gradient(fake)
        real = real_examples(self.model, self.spec, real_rows)
        return self.judge.loss(params, real, fake, (real_rows, fake_rows), key)

    def rate(self, player):
        return self.options.critic_rate if player == "critic" else 1.0

    def stand_in(self, player):
        """With options.known_density a critic like the generator estimates log P/Q = 0: its loss begins at chance."""
        return "generator" if player == "critic" and self.options.known_density else None

    def remember(self, carry, metrics, params):
        """The moving average of the reward to come, which is centred as what it is subtracted from, and the vectors of
        spectral normalisation, a round for each critic step."""
        vectors = spectral.refresh(params["critic"], carry["spectral"], self.options.critic_steps)
        if "generator/to_come" not in metrics:
            return carry | {"spectral": vectors}
        to_come = metrics["generator/to_come"]
        decay = self.options.baseline_decay
        mean = to_come.total / jnp.maximum(to_come.weight, 1)
        return {"baseline": decay * carry["baseline"] + (1 - decay) * mean, "spectral": vectors}

    def optimum(self, world: worlds.World) -> Optimum | None:
        if self.options.generator_loss != "js":
            return None
        return factorised_optimum(self.model, world, self.options.real_prior)


def build(config: ConfigDict, spec: Spec) -> Adversarial:
    options = Options.read(config.objective, config.adversarial)
    model = generator_of(config, spec)
    family = plugins.load("models", config.critic.name)
    if hasattr(family, "critic"):
        network = family.critic(config.critic, spec)
    else:
        network = prefix_critic(family.build(config.critic, spec), normalised=options.known_density)
    judge = Judge(network, model, GAMES[options.generator_loss], options)
    estimator = Estimator(model, spec, judge, options)
    leave_one_out = estimator.scores and options.baseline == "leave_one_out"
    return Adversarial(
        model,
        judge,
        estimator,
        spec,
        options,
        config.steps,
        players=("critic",) * options.critic_steps + ("generator",),
        splittable=not judge.game.normalised and not leave_one_out,
    )
