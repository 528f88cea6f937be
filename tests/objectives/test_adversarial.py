"""The dial with a learned critic: every estimator against the exact gradient in a world that is enumerated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, theory_adversarial
from gentrain import plugins
from gentrain.datasets.spec import PointSpec, TextSpec
from gentrain.divergences import kl_from_log, normalised_js_from_logits
from gentrain.errors import ConfigError
from gentrain.models.base import Critic
from gentrain.objectives.adversarial.critic import diagnostics
from gentrain.objectives.adversarial.examples import real_examples
from gentrain.options.check import validate
from tests.objectives.helpers import (
    every_string,
    final_metrics,
    log_table,
    mean,
    standard_errors,
    whole_batch,
    with_critic,
)

VOCAB, LENGTH, ROWS, ROUNDS = 3, 3, 512, 60
SPEC = TextSpec(VOCAB, LENGTH)
EVERY = every_string(VOCAB, LENGTH)
P = np.random.default_rng(0).dirichlet(np.full(VOCAB**LENGTH, 0.7)).reshape((VOCAB,) * LENGTH)
# A random generator, and the critic whose every prefix has the true log-ratio.
GENERATOR = {"table": jnp.asarray(np.random.default_rng(1).normal(0, 0.7, (13, VOCAB)), jnp.float32)}
CRITIC = {"table": jnp.asarray(log_table(P), jnp.float32) - jax.nn.log_softmax(GENERATOR["table"])}
CARRY = {"baseline": 0.9, "spectral": {}}


def settings(**options):
    config = base.get_config()
    config.data.name, config.data.batch_size = "world:table", ROWS
    config.model.name, config.critic.name, config.objective.name = "tabular", "tabular", "adversarial"
    config.objective.real_prior = options.pop("real_prior", 0.5)
    config.adversarial.update(options)
    return config


@functools.cache
def build(**options):
    return plugins.load("objectives", "adversarial").build(settings(**{"baseline": "none", **options}), SPEC)


def data_batches(rounds, seed):
    """Batches of the data, one for each key."""
    random = np.random.default_rng(seed)
    for number in range(rounds):
        yield whole_batch(EVERY[random.choice(len(EVERY), ROWS, p=P.ravel())]), jax.random.key(number)


@functools.cache
def log_q():
    """The generator's log-probability of every string."""
    return np.asarray(build().model.log_prob(GENERATOR, jnp.asarray(EVERY)))


DIVERGENCES = {
    "js": lambda log_q, pi: normalised_js_from_logits(np.log(P.ravel()), log_q, pi),
    "reverse_kl": lambda log_q, pi: kl_from_log(log_q, np.log(P.ravel())),
    "forward_kl": lambda log_q, pi: kl_from_log(np.log(P.ravel()), log_q),
}


@functools.cache
def exact_gradient(name, pi, model=None):
    """Of a divergence in the generator's table; of another model in its parameters at key 1."""
    model = model or build().model
    params = GENERATOR if model is build().model else model.init(jax.random.key(1))

    def value(params):
        return DIVERGENCES[name](model.log_prob(params, jnp.asarray(EVERY)), pi)

    return np.asarray(jax.jit(jax.grad(value))(params)["table"])


def generator_gradients(objective, params, batch, rounds, carry=CARRY):
    """The generator's gradient, round after round: (rounds, …) for each leaf."""

    @jax.jit
    def gradient(key):
        def loss(generator):
            total, _ = objective.loss("generator", params | {"generator": generator}, carry, batch, key, 0)
            return total.total / total.weight

        return jax.grad(loss)(params["generator"])

    gradients = [gradient(jax.random.key(number)) for number in range(rounds)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *gradients)


@functools.cache
def estimates(**options):
    """The generator's gradient at the optimal critic: (ROUNDS, …)."""
    batch, _ = next(data_batches(1, seed=2))
    params = {"generator": GENERATOR, "critic": CRITIC}
    return generator_gradients(build(**options), params, batch, ROUNDS)["table"]


@pytest.mark.parametrize(("pi", "reward"), [(0.1, "dense"), (0.9, "sequence"), (0.3, "rollouts")])
def test_the_score_function_is_unbiased_for_the_dial(pi, reward):
    gradients = estimates(generator_loss="js", real_prior=pi, reward=reward, rollouts=4)
    assert standard_errors(gradients, exact_gradient("js", pi)) < 2
    assert standard_errors(gradients, exact_gradient("js", 1 - pi)) > 4


@pytest.mark.parametrize("baseline", ["leave_one_out", "moving_average"])
def test_a_baseline_adds_no_bias_and_takes_variance_away(baseline):
    options = {"generator_loss": "js", "real_prior": 0.2, "reward": "sequence"}
    plain, gradients = estimates(**options), estimates(**options, baseline=baseline)
    assert standard_errors(gradients, exact_gradient("js", 0.2)) < 2
    assert gradients.var(0).sum() < 0.8 * plain.var(0).sum()


@pytest.mark.parametrize("reward", ["dense", "discounted"])
def test_the_moving_average_is_centred_as_the_reward_to_come_is(reward):
    """At its own mean it adds neither bias nor variance, also where the reward to come is not that of the whole."""
    options = {"generator_loss": "js", "real_prior": 0.2, "reward": reward}
    objective = build(**options, baseline="moving_average", baseline_decay=0.0)
    params, (batch, key) = {"generator": GENERATOR, "critic": CRITIC}, next(data_batches(1, seed=2))
    _, metrics = jax.jit(objective.loss, static_argnums=0)("generator", params, CARRY, batch, key, 0)
    carry = objective.remember(CARRY, {f"generator/{name}": value for name, value in metrics.items()}, params)
    gradients = generator_gradients(objective, params, batch, ROUNDS, carry)["table"]
    plain = estimates(**options)
    assert not np.array_equal(gradients, plain)
    assert standard_errors(gradients - plain) < 2
    assert gradients.var(0).sum() < 1.02 * plain.var(0).sum()


def test_samples_are_scored_by_the_law_that_they_are_drawn_from():
    """Without the generator's dropout: with it, the score would have another mean than 0."""
    batch = whole_batch(np.zeros((16, LENGTH), np.int32))
    losses = []
    for dropout in (0.0, 0.5):
        config = settings(baseline="none")
        config.model.name, config.model.width, config.model.dropout = "lstm", 8, dropout
        objective = plugins.load("objectives", "adversarial").build(config, SPEC)
        params = {"generator": objective.model.init(jax.random.key(0)), "critic": CRITIC}
        losses.append(
            jax.jit(objective.loss, static_argnums=0)("generator", params, CARRY, batch, jax.random.key(1), 0)
        )
    assert mean(losses[0][0]) == mean(losses[1][0]) != 0


@pytest.mark.parametrize(("name", "other"), [("reverse_kl", "forward_kl"), ("forward_kl", "reverse_kl")])
def test_both_ends_have_estimators_of_their_own(name, other):
    gradients = estimates(generator_loss=name, real_prior=0.3, reward="dense")
    # The weights of forward_kl are normalised, which is a bias of order 1/rows.
    assert standard_errors(gradients, exact_gradient(name, 0.3)) < 2.5
    assert standard_errors(gradients, exact_gradient(other, 0.3)) > 6


@pytest.mark.parametrize(("pi", "other"), [(1e-3, "forward_kl"), (0.999, "reverse_kl")])
def test_the_dial_s_rewards_end_at_those_of_both_ends(pi, other):
    """softplus(l) / pi is the ratio of MaliGAN as pi -> 0, and the logit as pi -> 1, but for a constant."""
    near = log_table(P)
    generator = (0.8 * near + 0.2 * np.asarray(GENERATOR["table"])).astype(np.float32)  # not far from P
    critic = (near - np.asarray(jax.nn.log_softmax(generator))).astype(np.float32)
    params = {"generator": {"table": jnp.asarray(generator)}, "critic": {"table": jnp.asarray(critic)}}
    batch = whole_batch(np.zeros((ROWS, LENGTH), np.int32))

    def slope(name):
        objective = build(generator_loss=name, real_prior=pi, baseline="leave_one_out")
        return generator_gradients(objective, params, batch, 1)["table"].ravel()

    dial, end = slope("js"), slope(other)
    cosine = dial @ end / np.linalg.norm(dial) / np.linalg.norm(end)
    assert cosine > 0.99
    assert np.linalg.norm(dial) == pytest.approx(np.linalg.norm(end), rel=0.1)


def test_discounted_rewards_are_biased():
    gradients = estimates(generator_loss="js", reward="discounted")
    assert standard_errors(gradients, exact_gradient("js", 0.5)) > 6


@pytest.mark.parametrize("reward", ["sequence", "dense"])
def test_the_weights_of_forward_kl_are_normalised_over_the_batch(reward):
    """A critic that is wrong by a constant everywhere scales all weights alike, and the gradient stays."""
    options = {"generator_loss": "forward_kl", "real_prior": 0.3, "reward": reward, "baseline": "leave_one_out"}
    objective, batch = build(**options), whole_batch(EVERY)
    network = objective.judge.critic

    def shifted(params, *rest):
        return 2.0 + network.apply(params, *rest)

    params = {"generator": GENERATOR, "critic": CRITIC}
    plain, moved = (
        generator_gradients(each, params, batch, 1)["table"]
        for each in (objective, with_critic(objective, Critic(network.init, shifted)))
    )
    np.testing.assert_allclose(moved, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max())


@pytest.mark.parametrize("estimator", ["straight_through", "gumbel_softmax"])
def test_gradients_through_mixtures_point_the_right_way_but_are_biased(estimator):
    """Independent positions against a critic that is linear in every token's weights and right at all strings."""
    config = settings(generator_loss="reverse_kl", estimator=estimator)
    config.model.name = "factorised"
    objective = plugins.load("objectives", "adversarial").build(config, SPEC)
    generator = objective.model.init(jax.random.key(1))
    log_q = np.asarray(objective.model.log_prob(generator, jnp.asarray(EVERY)))
    ratio = jnp.asarray((np.log(P.ravel()) - log_q).reshape((VOCAB,) * LENGTH), jnp.float32)

    def log_ratio(params, weights, context=None, keys=None):
        return jnp.einsum("na,nb,nc,abc->n", *(weights[:, t, :VOCAB] for t in range(LENGTH)), ratio)[:, None]

    objective = with_critic(objective, Critic(lambda key: {}, log_ratio))
    batch = whole_batch(np.zeros((ROWS, LENGTH), np.int32))
    gradients = generator_gradients(objective, {"generator": generator, "critic": {}}, batch, ROUNDS)["table"]
    exact, mean = exact_gradient("reverse_kl", 0.5, objective.model), gradients.mean(0)
    assert standard_errors(gradients, exact) > 6
    assert (mean * exact).sum() / np.linalg.norm(mean) / np.linalg.norm(exact) > 0.8


@pytest.mark.parametrize("estimator", ["straight_through", "gumbel_softmax"])
def test_mixtures_end_as_the_data_do(estimator):
    """After the end token 0, or a critic of whole sequences would tell them apart by what follows."""
    config = settings(estimator=estimator)
    config.model.name, config.critic.name, config.model.width = "lstm", "mlp", 8
    objective = plugins.load("objectives", "adversarial").build(config, TextSpec(VOCAB, 6, end=VOCAB - 1))
    params, batch = objective.model.init(jax.random.key(1)), whole_batch(np.zeros((32, 6), np.int32))
    weights, mask, _ = jax.jit(objective.estimator.draw)(params, batch, jax.random.key(2))
    ends = np.argmax(weights, axis=2) == VOCAB - 1
    assert (~mask).sum() > 0 and np.array_equal(mask, np.cumsum(ends, axis=1) - ends == 0)
    np.testing.assert_array_equal(weights[~mask], np.eye(VOCAB + 1)[np.zeros((~mask).sum(), int)])


@pytest.mark.parametrize(
    ("name", "pi"), [("js", 0.2), ("js", 0.7), ("reverse_kl", 0.3), ("forward_kl", 0.3), ("non_saturating", 0.7)]
)
def test_points_are_differentiated_through(name, pi):
    """One Gaussian for another, at the critic that knows their ratio: the mean gradient is the divergence's."""
    config = settings(generator_loss=name, real_prior=pi)
    config.model.name, config.critic.name = "gaussian", "mlp"
    objective = plugins.load("objectives", "adversarial").build(config, PointSpec(0, 1))
    generator = {"mean": jnp.asarray([0.4]), "log_scale": jnp.log(jnp.asarray(0.8))}

    def log_p(x):
        return -0.5 * jnp.square(x[:, 0]) - 0.5 * np.log(2 * np.pi)

    def log_ratio(params, x, context=None, keys=None):
        return (log_p(x) - objective.model.log_prob(generator, x))[:, None]

    batch = {"points": jnp.zeros((ROWS, 1)), "mask": jnp.ones(ROWS, bool), "row": jnp.arange(ROWS)}
    params = {"generator": generator, "critic": {}}
    gradients = generator_gradients(with_critic(objective, Critic(lambda key: {}, log_ratio)), params, batch, 200)
    grid = jnp.linspace(-9, 9, 4001)[:, None]

    def value(generator):
        log_q, log_real = (law + np.log(18 / 4000) for law in (objective.model.log_prob(generator, grid), log_p(grid)))
        if name == "non_saturating":
            log_m = jnp.logaddexp(np.log(pi) + log_real, np.log1p(-pi) + log_q)
            return jnp.sum(jnp.exp(log_m) * (log_m - log_real)) / (1 - pi)
        both = {"reverse_kl": (log_q, log_real), "forward_kl": (log_real, log_q)}
        return kl_from_log(*both[name]) if name in both else normalised_js_from_logits(log_real, log_q, pi)

    exact = jax.jit(jax.grad(value))(generator)
    flat = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)], axis=1)
    assert standard_errors(flat, np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(exact)])) < 2.5


def test_the_entropy_bonus_is_the_gradient_of_the_entropy():
    weight = 0.7
    gradients = estimates(generator_loss="reverse_kl", reward="dense", entropy_weight=weight)

    def entropy(generator):
        log_q = build().model.log_prob(generator, jnp.asarray(EVERY))
        return -jnp.sum(jnp.exp(log_q) * log_q)

    plain = exact_gradient("reverse_kl", 0.5)
    assert standard_errors(gradients, plain - weight * np.asarray(jax.jit(jax.grad(entropy))(GENERATOR)["table"])) < 2
    assert standard_errors(gradients, plain) > 4


def test_the_critic_s_optimum_is_the_ratio_and_its_value_the_divergence():
    pi = 0.3
    network = build(real_prior=pi).judge.critic
    q = np.exp(log_q())

    def population(critic):
        """The loss of the critic over both laws, exactly: rows stand for strings, with their probabilities."""
        logits = np.log(pi / (1 - pi)) + network.apply(critic, jnp.asarray(EVERY))
        real, fake = jax.nn.softplus(-logits), jax.nn.softplus(logits)
        return jnp.sum(pi * P.ravel()[:, None] * real + (1 - pi) * q[:, None] * fake, axis=0)

    slope = jax.jit(jax.grad(lambda critic: population(critic).sum()))(CRITIC)["table"]
    assert np.abs(slope).max() < 1e-5
    entropy = -pi * np.log(pi) - (1 - pi) * np.log(1 - pi)
    js = pi * (1 - pi) * DIVERGENCES["js"](log_q(), pi)
    assert entropy - float(population(CRITIC)[-1]) == pytest.approx(float(js), abs=1e-5)
    assert np.abs(network.apply(network.init(jax.random.key(0)), jnp.asarray(EVERY))).max() == 0


@functools.cache
def critic_rounds(rounds=40, **options):
    """The critic's gradients (rounds, …) at the optimum of the plain loss, the last loss, and metrics of each round."""
    objective = build(**options)

    @jax.jit
    def gradient(batch, key):
        def loss(critic):
            total, metrics = objective.loss("critic", {"generator": GENERATOR, "critic": critic}, CARRY, batch, key, 0)
            return total.total / total.weight, (total, metrics)

        return jax.grad(loss, has_aux=True)(CRITIC)

    results = [gradient(batch, key) for batch, key in data_batches(rounds, seed=6)]
    return np.stack([slope["table"] for slope, _ in results]), results[-1][1][0], [each[1][1] for each in results]


def noise_ratio(slopes) -> float:
    """The norm of the mean by that of its standard error: 1 where the mean is 0."""
    error = slopes.std(0, ddof=1) / np.sqrt(len(slopes))
    return float(np.linalg.norm(slopes.mean(0)) / np.linalg.norm(error))


def test_the_reported_bound_and_calibration_are_those_of_the_laws():
    pi = 0.3
    _, _, metrics = critic_rounds(real_prior=pi)
    expected = {"bound": pi * (1 - pi) * float(DIVERGENCES["js"](log_q(), pi)), "calibration": 0.0}
    for name, value in expected.items():
        values = np.array([mean(each[name]) for each in metrics])
        assert abs(values.mean() - value) < 4.5 * values.std() / np.sqrt(len(values)), name


@pytest.mark.parametrize("pi", [0.25, 0.8])
def test_classes_by_counts_have_the_optimum_of_those_by_weights(pi):
    """Half the examples, data in pi of the rows; the ratio of P to Q is the optimum all the same."""
    slopes, total, metrics = critic_rounds(real_prior=pi, allocation="counts")
    assert noise_ratio(slopes) < 2
    assert float(total.weight) == ROWS * LENGTH
    assert float(metrics[-1]["real_probability"].weight) == round(pi * ROWS)
    assert float(critic_rounds(real_prior=0.3)[1].weight) == 2 * ROWS * LENGTH  # by weights


def test_label_smoothing_moves_the_optimum():
    plain, smoothed = critic_rounds(real_prior=0.3)[0], critic_rounds(real_prior=0.3, label_smoothing=0.1)[0]
    assert noise_ratio(smoothed) > 4 > 2 > noise_ratio(plain)


def test_auc_is_the_chance_that_data_have_the_larger_logit():
    random = np.random.default_rng(3)
    real, fake = random.normal(1, 1, 30), random.normal(0, 1, 20)
    real[:5] = fake[:5]
    masks = jnp.ones(30, bool), jnp.ones(20, bool)
    auc = jax.jit(lambda real, fake: diagnostics(real, fake, *masks, 0.3)["auc"])(real, fake)
    expected = np.mean([(r > f) + 0.5 * (r == f) for r in real for f in fake])
    assert mean(auc) == pytest.approx(expected, rel=1e-6)


def test_a_critic_that_knows_the_generator_s_density_is_right_when_it_is_the_data_s_law():
    pi = 0.35
    objective = build(real_prior=pi, known_density=True)
    judge, offset = objective.judge, np.log(pi / (1 - pi))
    examples = real_examples(objective.model, SPEC, whole_batch(EVERY))
    logits = jax.jit(lambda generator, critic: judge.logits({"generator": generator, "critic": critic}, examples, {}))
    critic = {"table": jnp.asarray(log_table(P), jnp.float32) + 3.0}  # any constant: it is normalised
    np.testing.assert_allclose(logits(GENERATOR, critic)[:, -1], offset + np.log(P.ravel()) - log_q(), atol=1e-4)
    slope = jax.grad(lambda generator: logits(generator, critic).sum())(GENERATOR)["table"]
    assert np.abs(slope).max() == 0  # the critic is held fixed, its share of the generator too
    uniform = {"table": jnp.zeros_like(GENERATOR["table"])}
    np.testing.assert_allclose(logits(uniform, judge.critic.init(jax.random.key(0))), offset, atol=1e-5)


@pytest.mark.parametrize("pi", [0.1, 0.7])
def test_a_critic_that_is_a_copy_of_the_generator_begins_at_chance(pi):
    config = settings(real_prior=pi, known_density=True)
    config.model.name, config.model.width, config.critic.name, config.critic.width = "lstm", 8, "lstm", 8
    objective = plugins.load("objectives", "adversarial").build(config, SPEC)
    assert objective.stand_in("critic") == "generator" and objective.stand_in("generator") is None
    assert build(known_density=False).stand_in("critic") is None
    params, carry = objective.init(jax.random.key(0), whole_batch(EVERY))
    params = params | {"critic": params[objective.stand_in("critic")]}
    total, metrics = jax.jit(objective.loss, static_argnums=0)(
        "critic", params, carry, whole_batch(EVERY), jax.random.key(1), 0
    )
    assert mean(total) == pytest.approx(-pi * np.log(pi) - (1 - pi) * np.log(1 - pi), rel=1e-5)
    assert abs(mean(metrics["bound"])) < 1e-5


@pytest.mark.parametrize(("critic", "pi"), [("tabular", 0.1), pytest.param("mlp", 0.75, marks=pytest.mark.slow)])
def test_a_run_lands_on_the_minimiser(tmp_path, run_on_one_device, critic, pi):
    config = theory_adversarial.get_config("" if critic == "tabular" else critic)
    config.sweep, config.objective.real_prior, config.data.world.length, config.data.world.seed = (), pi, 4, 3
    config.steps, config.optimizer.learning_rate = (350, 0.03) if critic == "tabular" else (700, 0.02)
    config.training.ema_decay = 0.98 if critic == "tabular" else 0.995
    config.evaluate.every_steps = config.log.every_steps = config.steps
    config.data.world.held_out = 256
    final = final_metrics(config, tmp_path)
    assert final["exact/minimiser_error"] < 0.02 and final["exact/excess_njs"] < 1e-3
    assert final["critic/bound"] == pytest.approx(final[f"exact/js@{pi:g}"], abs=0.01)


POINTS = {"data.name": "world:ring", "model.name": "mlp", "critic.name": "mlp", "evaluate.evaluators": ("modes",)}
PICTURES = {"data.name": "digits", "model.name": "dcgan", "critic.name": "dcgan", "evaluate.evaluators": ("samples",)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective.real_prior": 1.0}, "real_prior=1.0: .*'reverse_kl'"),
        ({"objective.real_prior": 0.0}, "real_prior=0.0: .*'forward_kl'"),
        ({"adversarial.estimator": "straight_through"}, "'straight_through': .* mixtures of tokens, as lstm"),
        ({"adversarial.generator_loss": "hinge"}, "'hinge': expected one that gives rewards, .*: js, reverse_kl"),
        ({"adversarial.generator_loss": "saturating"}, "'saturating': expected one of .*non_saturating"),
        ({"adversarial.r1": 0.1}, "no slope"),
        ({"adversarial.r2": 0.1}, "no slope"),
        (POINTS | {"adversarial.entropy_weight": 0.1}, "entropy_weight=0.1 is set, .* models? of sequences"),
        (POINTS | {"adversarial.likelihood_weight": 0.1}, "likelihood_weight=0.1: .* no log-probabilities"),
        ({"adversarial.spectral_norm": True}, "with matrices"),
        (
            POINTS | {"adversarial.generator_loss": "relativistic", "adversarial.allocation": "counts"},
            "allocation='counts' is set, and nothing reads it: .*'hinge'",
        ),
        ({"critic.name": "mlp"}, "reward='dense': expected 'sequence' or 'rollouts': critic.name='mlp'"),
        (PICTURES | {"adversarial.augment": ("mirror",)}, "augment='mirror': expected some of flip, shift"),
        (PICTURES | {"adversarial.augment": ("flip", "colour")}, "augment='colour': expected some of flip, shift"),
        ({"adversarial.augment": ("flip",)}, "augment=.* is set, .* models? of images"),
        (
            {"critic.name": "mlp", "adversarial.reward": "sequence", "adversarial.known_density": True},
            "known_density=True: .*'mlp' is no model of sequences",
        ),
        ({"model.name": "lstm", "model.dropout": 0.1}, "model.dropout=0.1: expected 0: samples are drawn and scored"),
    ],
)
def test_options_that_cannot_be_are_named(changes, words):
    config = settings()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=words):
        validate(config)


DROPPED = {"model.name": "lstm", "model.dropout": 0.1, "adversarial.likelihood_weight": 0.1}


@pytest.mark.parametrize("changes", [{}, POINTS, PICTURES, DROPPED])
def test_the_options_that_these_are_changes_of_can_be(changes):
    config = settings()
    config.update_from_flattened_dict(changes)
    validate(config)


def test_a_likelihood_term_is_added_by_its_schedule():
    """Per sequence: the whole -log Q of a row of data, at a weight that runs from the first to the final one."""
    params, batch, totals = {"generator": GENERATOR, "critic": CRITIC}, whole_batch(EVERY), {}
    for name, weights in (("plain", {}), ("mixed", {"likelihood_weight": 2.0, "likelihood_final": 0.5})):
        config = settings(baseline="none", **weights)
        config.steps = 100
        objective = plugins.load("objectives", "adversarial").build(config, SPEC)
        loss = jax.jit(objective.loss, static_argnums=0)
        for step in (0, 50, 100):
            total, metrics = loss("generator", params, CARRY, batch, jax.random.key(1), step)
            totals[name, step] = mean(total)
    nll = -log_q().mean()
    assert mean(metrics["nll"]) == pytest.approx(nll / LENGTH, rel=1e-5)
    for step, weight in ((0, 2.0), (50, 1.25), (100, 0.5)):
        assert totals["mixed", step] - totals["plain", step] == pytest.approx(weight * nll, rel=1e-3)
