"""The dial with a learned critic: every estimator against the exact gradient in a world that is enumerated."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, theory_adversarial
from gentrain.options import check as rules
from gentrain import models, plugins, sharding, train, worlds
from gentrain.datasets.spec import TextSpec
from gentrain.divergences import kl_from_log, normalised_js_from_logits
from gentrain.errors import ConfigError
from gentrain.process import Stop

VOCAB, LENGTH, ROWS, ROUNDS = 3, 3, 512, 60
SPEC = Spec(VOCAB, LENGTH, None, "text", str)
EVERY = np.indices((VOCAB,) * LENGTH).reshape(LENGTH, -1).T
P = np.random.default_rng(0).dirichlet(np.full(VOCAB**LENGTH, 0.7)).reshape((VOCAB,) * LENGTH)


def settings(**options):
    config = base.get_config()
    config.data.name, config.data.batch_size = "world:table", ROWS
    config.model.name, config.critic.name, config.objective.name = "tabular", "tabular", "adversarial"
    config.objective.update({"baseline": "none", **options})
    return config


def optimal(config):
    """The objective, a random generator, and the critic whose every prefix has the true log-ratio."""
    built = plugins.load("objectives", "adversarial").build(config, SPEC)
    theta = jnp.asarray(np.random.default_rng(1).normal(0, 0.7, (13, VOCAB)), jnp.float32)
    real = np.concatenate([law.reshape(-1, VOCAB) for law in worlds.conditionals(P)])
    critic = {"table": jnp.log(jnp.asarray(real, jnp.float32)) - jax.nn.log_softmax(theta)}
    return built, {"table": theta}, critic


DIVERGENCES = {
    "js": lambda log_q, pi: normalised_js_from_logits(np.log(P.ravel()), log_q, pi),
    "reverse_kl": lambda log_q, pi: kl_from_log(log_q, np.log(P.ravel())),
    "forward_kl": lambda log_q, pi: kl_from_log(np.log(P.ravel()), log_q),
}


def exact_gradient(built, params, name, pi):
    def value(own):
        log_q = models.log_prob(built.model, own, jnp.asarray(EVERY))
        return DIVERGENCES[name](log_q, pi)

    return np.asarray(jax.grad(value)(params)["table"])


def estimates(config, rounds=ROUNDS):
    """The generator's gradient at the optimal critic, round after round: (rounds, …), and the exact one."""
    built, own, critic = optimal(config)
    random = np.random.default_rng(2)
    rows = random.choice(VOCAB**LENGTH, (ROWS,), p=P.ravel())
    batch = {"tokens": jnp.asarray(EVERY[rows]), "mask": jnp.ones((ROWS, LENGTH), bool), "row": jnp.arange(ROWS)}

    @jax.jit
    def gradient(key):
        def loss(own):
            total, _ = built.loss(
                "generator", {"generator": own, "critic": critic}, {"baseline": 0.9, "spectral": {}}, batch, key, 0
            )
            return total.total / total.weight

        return jax.grad(loss)(own)["table"]

    found = np.stack([np.asarray(gradient(jax.random.key(i))) for i in range(rounds)])
    return found, exact_gradient(built, own, config.adversarial.generator_loss, config.objective.real_prior)


def off(found, exact):
    """How many standard errors the mean is from the exact gradient: the root of their mean square."""
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    return float(np.sqrt(np.mean(((found.mean(0) - exact) / np.maximum(error, 1e-9)) ** 2)))


@pytest.mark.parametrize(("pi", "reward"), [(0.1, "dense"), (0.9, "sequence"), (0.3, "rollouts")])
def test_the_score_function_is_unbiased_for_the_dial(pi, reward):
    found, exact = estimates(settings(generator_loss="js", real_prior=pi, reward=reward, rollouts=4))
    assert off(found, exact) < 2
    wrong = optimal(settings(generator_loss="js", real_prior=1 - pi))
    assert off(found, exact_gradient(*wrong[:2], "js", 1 - pi)) > 4


@pytest.mark.parametrize("baseline", ["leave_one_out", "moving_average"])
def test_a_baseline_adds_no_bias_and_takes_variance_away(baseline):
    plain, _ = estimates(settings(generator_loss="js", real_prior=0.2, reward="sequence"))
    found, exact = estimates(settings(generator_loss="js", real_prior=0.2, reward="sequence", baseline=baseline))
    assert off(found, exact) < 2
    assert found.var(0).sum() < 0.8 * plain.var(0).sum()


@pytest.mark.parametrize("name", ["reverse_kl", "forward_kl"])
def test_both_ends_have_estimators_of_their_own(name):
    found, exact = estimates(settings(generator_loss=name, real_prior=0.3, reward="dense"))
    assert off(found, exact) < 2.5  # weights of forward_kl are normalised: a bias of order 1/rows
    other = "forward_kl" if name == "reverse_kl" else "reverse_kl"
    assert off(found, exact_gradient(*optimal(settings())[:2], other, 0.3)) > 6


@pytest.mark.parametrize(("pi", "other"), [(1e-3, "forward_kl"), (0.999, "reverse_kl")])
def test_the_dial_s_rewards_end_at_those_of_both_ends(pi, other):
    """softplus(l) / pi is the ratio of MaliGAN as pi -> 0, and the logit as pi -> 1, but for a constant."""

    def slope(name):
        built, own, _ = optimal(settings(generator_loss=name, real_prior=pi, baseline="leave_one_out"))
        near = jnp.asarray(np.log(np.concatenate([law.reshape(-1, VOCAB) for law in worlds.conditionals(P)])))
        own = {"table": (0.8 * near + 0.2 * own["table"]).astype(jnp.float32)}  # not far from P
        critic = {"table": (near - jax.nn.log_softmax(own["table"])).astype(jnp.float32)}
        batch = {"tokens": jnp.zeros((ROWS, LENGTH), jnp.int32), "mask": jnp.ones((ROWS, LENGTH), bool)}
        batch["row"] = jnp.arange(ROWS)

        def loss(own):
            params, carry = {"generator": own, "critic": critic}, {"baseline": 0.0, "spectral": {}}
            return built.loss("generator", params, carry, batch, jax.random.key(7), 0)[0].total

        return np.asarray(jax.jit(jax.grad(loss))(own)["table"]).ravel()

    found = [slope("js"), slope(other)]
    cosine = found[0] @ found[1] / np.linalg.norm(found[0]) / np.linalg.norm(found[1])
    assert cosine > 0.99
    assert np.linalg.norm(found[0]) == pytest.approx(np.linalg.norm(found[1]), rel=0.1)


def test_discounted_rewards_are_biased():
    found, exact = estimates(settings(generator_loss="js", reward="discounted"))
    assert off(found, exact) > 6


@pytest.mark.parametrize("estimator", ["straight_through", "gumbel_softmax"])
def test_gradients_through_mixtures_point_the_right_way_but_are_biased(estimator):
    """Independent positions against a critic that is linear in every token's weights and right at all strings."""
    config = settings(generator_loss="reverse_kl", estimator=estimator)
    config.model.name = "factorised"
    built = plugins.load("objectives", "adversarial").build(config, SPEC)
    own = built.model.init(jax.random.key(1))
    log_q = np.asarray(models.log_prob(built.model, own, jnp.asarray(EVERY)))
    ratio = jnp.asarray((np.log(P.ravel()) - log_q).reshape((VOCAB,) * LENGTH), jnp.float32)

    def apply(params, weights, context=None, keys=None):
        return jnp.einsum("na,nb,nc,abc->n", *(weights[:, t, :VOCAB] for t in range(LENGTH)), ratio)[:, None]

    built = type(built)(**{**vars(built), "critic": models.Critic(lambda key: {}, apply)})
    batch = {"tokens": jnp.zeros((ROWS, LENGTH), jnp.int32), "mask": jnp.ones((ROWS, LENGTH), bool)}
    batch["row"] = jnp.arange(ROWS)

    @jax.jit
    def gradient(key):
        def loss(own):
            total, _ = built.loss("generator", {"generator": own, "critic": {}}, {"spectral": {}}, batch, key, 0)
            return total.total / total.weight

        return jax.grad(loss)(own)["table"]

    found = np.stack([np.asarray(gradient(jax.random.key(i))) for i in range(ROUNDS)])
    exact = exact_gradient(built, own, "reverse_kl", 0.5)
    mean = found.mean(0)
    assert off(found, exact) > 6
    assert (mean * exact).sum() / np.linalg.norm(mean) / np.linalg.norm(exact) > 0.8


@pytest.mark.parametrize(
    ("name", "pi"), [("js", 0.2), ("js", 0.7), ("reverse_kl", 0.3), ("forward_kl", 0.3), ("non_saturating", 0.7)]
)
def test_points_are_differentiated_through(name, pi):
    """One Gaussian for another, at the critic that knows their ratio: the mean gradient is the divergence's."""
    config = settings(generator_loss=name, real_prior=pi)
    config.data.name, config.model.name, config.critic.name = "world:gaussian", "gaussian", "mlp"
    config.data.world.covariance, spec = ((1.0,),), Spec(0, 1, None, "points", str)
    built = plugins.load("objectives", "adversarial").build(config, spec)
    own = {"mean": jnp.asarray([0.4]), "log_scale": jnp.log(jnp.asarray(0.8))}
    log_p = lambda x: -0.5 * jnp.square(x[:, 0]) - 0.5 * np.log(2 * np.pi)
    apply = lambda params, x, context=None, keys=None: (log_p(x) - built.model.log_prob(own, x))[:, None]
    built = type(built)(**{**vars(built), "critic": models.Critic(lambda key: {}, apply)})
    batch = {"points": jnp.zeros((ROWS, 1)), "mask": jnp.ones(ROWS, bool), "row": jnp.arange(ROWS)}

    @jax.jit
    def gradient(key):
        def loss(own):
            total, _ = built.loss("generator", {"generator": own, "critic": {}}, {"spectral": {}}, batch, key, 0)
            return total.total / total.weight

        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(jax.grad(loss)(own))])

    grid = jnp.linspace(-9, 9, 4001)[:, None]

    def value(own):
        log_q, log_real = (law + np.log(18 / 4000) for law in (built.model.log_prob(own, grid), log_p(grid)))
        if name == "non_saturating":
            log_m = jnp.logaddexp(np.log(pi) + log_real, np.log1p(-pi) + log_q)
            return jnp.sum(jnp.exp(log_m) * (log_m - log_real)) / (1 - pi)
        both = {"reverse_kl": (log_q, log_real), "forward_kl": (log_real, log_q)}
        return kl_from_log(*both[name]) if name in both else normalised_js_from_logits(log_real, log_q, pi)

    found = np.stack([np.asarray(gradient(jax.random.key(i))) for i in range(200)])
    exact = np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.grad(value)(own))])
    assert off(found, exact) < 2.5


def test_the_entropy_bonus_is_the_gradient_of_the_entropy():
    weight = 0.7
    config = settings(generator_loss="reverse_kl", reward="dense", entropy_weight=weight)
    found, exact = estimates(config)
    built, own, _ = optimal(config)

    def entropy(own):
        log_q = models.log_prob(built.model, own, jnp.asarray(EVERY))
        return -jnp.sum(jnp.exp(log_q) * log_q)

    assert off(found, exact - weight * np.asarray(jax.grad(entropy)(own)["table"])) < 2
    assert off(found, exact) > 4


def test_the_critic_s_optimum_is_the_ratio_and_its_value_the_divergence():
    pi = 0.3
    config = settings(real_prior=pi)
    built, own, critic = optimal(config)
    q = np.exp(np.asarray(models.log_prob(built.model, own, jnp.asarray(EVERY))))

    def population(critic):
        """The loss of the critic over both laws, exactly: rows stand for strings, with their probabilities."""
        logits = np.log(pi / (1 - pi)) + built.critic.apply(critic, jnp.asarray(EVERY))
        real, fake = jax.nn.softplus(-logits), jax.nn.softplus(logits)
        return jnp.sum(pi * P.ravel()[:, None] * real + (1 - pi) * q[:, None] * fake, axis=0)

    slope = jax.grad(lambda critic: population(critic).sum())(critic)["table"]
    assert np.abs(slope).max() < 1e-5
    entropy = -pi * np.log(pi) - (1 - pi) * np.log(1 - pi)
    js = pi * (1 - pi) * DIVERGENCES["js"](np.log(q), pi)
    assert entropy - float(population(critic)[-1]) == pytest.approx(float(js), abs=1e-5)
    assert np.abs(built.critic.apply(built.critic.init(jax.random.key(0)), jnp.asarray(EVERY))).max() == 0


def test_the_reported_bound_and_calibration_are_those_of_the_laws():
    pi, rounds = 0.3, 40
    config = settings(real_prior=pi)
    built, own, critic = optimal(config)
    random, told = np.random.default_rng(5), []
    loss = jax.jit(
        lambda batch, key: built.loss("critic", {"generator": own, "critic": critic}, {"spectral": {}}, batch, key, 0)[
            1
        ]
    )
    for number in range(rounds):
        rows = random.choice(VOCAB**LENGTH, (ROWS,), p=P.ravel())
        batch = {"tokens": jnp.asarray(EVERY[rows]), "mask": jnp.ones((ROWS, LENGTH), bool), "row": jnp.arange(ROWS)}
        told.append({k: float(v.total / v.weight) for k, v in loss(batch, jax.random.key(number)).items()})
    q = np.asarray(models.log_prob(built.model, own, jnp.asarray(EVERY)))
    expected = {"bound": pi * (1 - pi) * float(DIVERGENCES["js"](q, pi)), "calibration": 0.0}
    for name, value in expected.items():
        values = np.array([each[name] for each in told])
        assert abs(values.mean() - value) < 4.5 * values.std() / np.sqrt(rounds), name


def critic_slope(config, rounds=40):
    """The critic's mean gradient at the optimum of the plain loss, over its standard error (1 where it is 0), and the
    sums of the last round."""
    built, own, critic = optimal(config)
    random, slopes = np.random.default_rng(6), []

    @jax.jit
    def gradient(tokens, key):
        batch = {"tokens": tokens, "mask": jnp.ones((ROWS, LENGTH), bool), "row": jnp.arange(ROWS)}

        def loss(critic):
            params = {"generator": own, "critic": critic}
            total, extra = built.loss("critic", params, {"baseline": 0.0, "spectral": {}}, batch, key, 0)
            return total.total / total.weight, (total, extra)

        return jax.grad(loss, has_aux=True)(critic)

    for number in range(rounds):
        rows = random.choice(VOCAB**LENGTH, (ROWS,), p=P.ravel())
        slope, (total, extra) = gradient(jnp.asarray(EVERY[rows]), jax.random.key(number))
        slopes.append(np.asarray(slope["table"]))
    mean, error = np.mean(slopes, axis=0), np.std(slopes, axis=0, ddof=1) / np.sqrt(rounds)
    return float(np.linalg.norm(mean) / np.linalg.norm(error)), total, extra


@pytest.mark.parametrize("pi", [0.25, 0.8])
def test_classes_by_counts_have_the_optimum_of_those_by_weights(pi):
    """Half the examples, data in pi of the rows; the ratio of P to Q is the optimum all the same."""
    size, total, extra = critic_slope(settings(real_prior=pi, allocation="counts"))
    assert size < 2
    assert float(total.weight) == ROWS * LENGTH and float(extra["real_probability"].weight) == round(pi * ROWS)
    both = critic_slope(settings(real_prior=pi, allocation="weights"), rounds=2)[1]
    assert float(both.weight) == 2 * ROWS * LENGTH


def test_label_smoothing_moves_the_optimum():
    plain, smoothed = (critic_slope(settings(real_prior=0.4, label_smoothing=s))[0] for s in (0.0, 0.1))
    assert smoothed > 4 > 2 > plain


def test_auc_is_the_chance_that_data_have_the_larger_logit():
    random = np.random.default_rng(3)
    real, fake = random.normal(1, 1, 30), random.normal(0, 1, 20)
    real[:5] = fake[:5]
    ones = lambda values: jnp.ones(len(values), bool)
    module = sys.modules[type(optimal(settings())[0]).__module__]
    found = module.judged(jnp.asarray(real), jnp.asarray(fake), ones(real), ones(fake), 0.3)["auc"]
    expected = np.mean([(r > f) + 0.5 * (r == f) for r in real for f in fake])
    assert float(found.total / found.weight) == pytest.approx(expected, rel=1e-6)


def test_a_critic_that_knows_the_generator_s_density_is_right_when_it_is_the_data_s_law():
    pi = 0.35
    config = settings(real_prior=pi, known_density=True)
    built, own, _ = optimal(config)
    table = jnp.log(jnp.asarray(np.concatenate([law.reshape(-1, VOCAB) for law in worlds.conditionals(P)])))
    params = {"generator": own, "critic": {"table": table.astype(jnp.float32) + 3.0}}  # any constant: it is normalised
    examples = built.reals({"tokens": jnp.asarray(EVERY), "mask": jnp.ones(EVERY.shape, bool)})
    logits = np.asarray(built.logits(params, examples, {}))
    log_q = np.asarray(models.log_prob(built.model, own, jnp.asarray(EVERY)))
    np.testing.assert_allclose(logits[:, -1], np.log(pi / (1 - pi)) + np.log(P.ravel()) - log_q, atol=1e-4)
    slope = jax.grad(lambda own: built.logits({**params, "generator": own}, examples, {}).sum())(own)["table"]
    assert np.abs(slope).max() == 0  # the critic is held fixed, its share of the generator too
    start = built.critic.init(jax.random.key(0))
    uniform = built.logits({"generator": {"table": jnp.zeros_like(own["table"])}, "critic": start}, examples, {})
    np.testing.assert_allclose(uniform, np.log(pi / (1 - pi)), atol=1e-5)


@pytest.mark.parametrize(("critic", "pi"), [("tabular", 0.1), pytest.param("mlp", 0.75, marks=pytest.mark.slow)])
def test_a_run_lands_on_the_minimiser(tmp_path, monkeypatch, critic, pi):
    monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    config = theory_adversarial.get_config("" if critic == "tabular" else critic)
    config.sweep, config.objective.real_prior, config.data.world.length, config.data.world.seed = (), pi, 4, 3
    config.steps = config.evaluate.every_steps = config.log.every_steps = 700
    config.data.world.held_out, config.optimizer.learning_rate = 256, 0.02
    train.train(config, tmp_path, Stop())
    final = json.loads((tmp_path / "report.json").read_text())["final"]
    assert final["exact/minimiser_error"] < 0.02 and final["exact/excess_njs"] < 1e-3
    assert final["critic/bound"] == pytest.approx(final[f"exact/js@{pi:g}"], abs=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective.real_prior": 1.0}, "reverse_kl"),
        ({"objective.real_prior": 0.0}, "forward_kl"),
        ({"adversarial.estimator": "straight_through"}, "lstm or transformer"),
        ({"adversarial.generator_loss": "hinge"}, "reward of its own"),
        ({"adversarial.generator_loss": "saturating"}, "non_saturating"),
        ({"adversarial.r1": 0.1}, "no slope"),
        ({"model.name": "mlp", "adversarial.entropy_weight": 0.1}, "knows the entropy"),
        ({"adversarial.spectral_norm": True}, "with matrices"),
        (
            {"model.name": "mlp", "adversarial.generator_loss": "relativistic", "adversarial.allocation": "counts"},
            "which has pairs",
        ),
    ],
)
def test_options_that_cannot_be_are_named(changes, words):
    config = settings()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=words):
        rules.validate(config)


def test_dense_rewards_need_a_critic_of_prefixes():
    config = settings(reward="dense")
    config.critic.name = "mlp"
    with pytest.raises(ConfigError, match="critic of prefixes"):
        plugins.load("objectives", "adversarial").build(config, SPEC)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adversarial.augment": ("mirror",)}, "no augmentation is named 'mirror'; there are: flip"),
        ({"adversarial.augment": ("flip",)}, "model.name='tabular' makes sequences"),
        ({"adversarial.known_density": True, "critic.name": "mlp"}, "of sequences and estimator='score'"),
    ],
)
def test_options_that_the_models_cannot_serve_are_named(changes, words):
    config = settings(reward="sequence")
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=words):
        plugins.load("objectives", "adversarial").build(config, SPEC)


def test_a_likelihood_term_is_added_by_its_schedule():
    """Per sequence: the whole -log Q of a row of data, at a weight that runs from the first to the final one."""
    plain, mixed = settings(), settings(likelihood_weight=2.0, likelihood_final=0.5)
    plain.steps = mixed.steps = 100
    batch = {"tokens": jnp.asarray(EVERY), "mask": jnp.ones(EVERY.shape, bool), "row": jnp.arange(len(EVERY))}
    values = {}
    for name, config in (("plain", plain), ("mixed", mixed)):
        built, own, critic = optimal(config)
        params, carry = {"generator": own, "critic": critic}, {"baseline": 0.0, "spectral": {}}
        for step in (0, 50, 100):
            total, told = built.loss("generator", params, carry, batch, jax.random.key(1), step)
            values[name, step] = float(total.total / total.weight)
    nll = -np.asarray(models.log_prob(built.model, own, jnp.asarray(EVERY))).mean()
    assert float(told["nll"].total / told["nll"].weight) == pytest.approx(nll / LENGTH, rel=1e-5)
    for step, weight in ((0, 2.0), (50, 1.25), (100, 0.5)):
        assert values["mixed", step] - values["plain", step] == pytest.approx(weight * nll, rel=1e-3)
