"""What the critic minimises, by the formulas, with critics whose logits and slopes are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import losses, plugins
from gentrain.datasets.spec import ImageSpec, PointSpec, TextSpec
from gentrain.models import mlp
from gentrain.models.base import Critic, Sampler
from gentrain.objectives.adversarial import spectral
from gentrain.objectives.adversarial.estimators import FAKES
from gentrain.objectives.adversarial.games import GAMES
from gentrain.objectives.adversarial_options import LOG_RATIO_GAMES, OTHER_GAMES
from gentrain.options import check
from tests.objectives.helpers import first_moves, mean, with_critic

ROWS, WEIGHTS = 32, np.array([0.7, -1.3], np.float32)
BATCH = {
    "points": jnp.asarray(np.random.default_rng(0).normal(size=(ROWS, 2)), jnp.float32),
    "mask": jnp.ones(ROWS, bool),
    "row": jnp.arange(ROWS),
}
KEY = jax.random.key(3)
SPEC = PointSpec(0, 2)


def critic_of(function) -> Critic:
    """A critic without parameters: function(points (n, 2)) -> its estimates (n,)."""
    return Critic(lambda key: {}, lambda params, x, context=None, keys=None: function(x)[:, None])


LINEAR = critic_of(lambda x: x @ WEIGHTS)
QUADRATIC = critic_of(lambda x: jnp.square(x) @ WEIGHTS)


def settings(**options):
    config = base.get_config()
    config.data.name, config.model.name, config.critic.name = "world:gaussian", "gaussian", "mlp"
    config.critic.width, config.critic.layers = 8, 2
    config.objective.name = "adversarial"
    config.objective.real_prior = options.pop("real_prior", 0.5)
    config.adversarial.update(options)
    return config


def build(critic=LINEAR, **options):
    """The objective with this critic, by default of its config; its first parameters and carry."""
    objective = plugins.load("objectives", "adversarial").build(settings(**options), SPEC)
    objective = with_critic(objective, critic) if critic else objective
    params, carry = objective.init(jax.random.key(0), BATCH)
    return objective, params, carry


def loss_of(objective, player, params, carry):
    return objective.loss(player, params, carry, BATCH, KEY, 0)


def samples(params, batch=BATCH):
    """The samples that the critic's loss is about."""
    objective = build()[0]
    return np.asarray(objective.estimator.draw(params["generator"], batch, jax.random.fold_in(KEY, FAKES)).values)


def softplus(x):
    return np.logaddexp(0, x)


@pytest.mark.parametrize("name", ["hinge", "relativistic"])
def test_hinge_and_relativistic_losses_are_those_of_the_papers(name):
    pi = 0.3
    objective, params, carry = build(generator_loss=name, real_prior=pi)
    real, fake = np.asarray(BATCH["points"]) @ WEIGHTS, samples(params) @ WEIGHTS
    critic_loss, metrics = loss_of(objective, "critic", params, carry)
    generator_loss, _ = loss_of(objective, "generator", params, carry)
    if name == "hinge":
        expected = pi * np.maximum(0, 1 - real).mean() + (1 - pi) * np.maximum(0, 1 + fake).mean(), -fake.mean()
    else:
        expected = softplus(fake - real).mean(), softplus(real - fake).mean()
    assert (mean(critic_loss), mean(generator_loss)) == pytest.approx(expected, rel=1e-5)
    assert set(metrics) == {"auc"}  # no prior, so no bound and no calibration


@pytest.mark.parametrize("pi", [0.25, 0.75])
def test_hinge_by_counts_holds_the_prior_once(pi):
    """Data in pi of the rows and samples in the rest have the loss of all of both by weights."""
    objective, params, carry = build(generator_loss="hinge", allocation="counts", real_prior=pi)
    count = round(pi * ROWS)
    fake = samples(params, jax.tree.map(lambda x: x[count:], BATCH)) @ WEIGHTS
    real = np.asarray(BATCH["points"])[:count] @ WEIGHTS
    expected = pi * np.maximum(0, 1 - real).mean() + (1 - pi) * np.maximum(0, 1 + fake).mean()
    total, _ = loss_of(objective, "critic", params, carry)
    assert mean(total) == pytest.approx(expected, rel=1e-5) and float(total.weight) == ROWS


VOCAB, LENGTH = 5, 4
BY_TOKEN = np.random.default_rng(6).normal(size=VOCAB).astype(np.float32)


def sum_over_tokens(params, examples, context=None, keys=None):
    """Of each prefix: the sum of its tokens' numbers, squared; of tokens or of weights that mix them."""
    weights = examples[..., :VOCAB] if examples.ndim == 3 else jax.nn.one_hot(examples, VOCAB)
    return jnp.square(jnp.cumsum(weights @ BY_TOKEN, axis=1))


@pytest.mark.parametrize("estimator", ["straight_through", "gumbel_softmax"])
@pytest.mark.parametrize("prefixes", ["all", "last"])
def test_slopes_of_sequences_are_in_the_weights_of_their_tokens(estimator, prefixes):
    """Of the square of a sum s over tokens: 2 s BY_TOKEN at each of them, once an example however long it is."""
    batch = {
        "tokens": jnp.asarray(np.random.default_rng(7).integers(0, VOCAB, (ROWS, LENGTH))),
        "mask": jnp.ones((ROWS, LENGTH), bool),
        "row": jnp.arange(ROWS),
    }

    def losses_of(**penalties):
        config = settings(estimator=estimator, prefixes=prefixes, real_prior=0.3, **penalties)
        config.data.name, config.model.name, config.critic.name, config.model.width = "surnames", "lstm", "lstm", 8
        check.validate(config)
        objective = plugins.load("objectives", "adversarial").build(config, TextSpec(VOCAB, LENGTH))
        objective = with_critic(objective, Critic(lambda key: {}, sum_over_tokens))
        params, carry = objective.init(jax.random.key(0), batch)
        fake = objective.estimator.draw(params["generator"], batch, jax.random.fold_in(KEY, FAKES)).values
        return objective.loss("critic", params, carry, batch, KEY, 0), (batch["tokens"], fake)

    (plain, _), (real, fake) = losses_of()
    squares = {}
    for name, examples in (("r1", real), ("r2", fake)):
        sums = np.sqrt(np.asarray(sum_over_tokens({}, examples))[:, -1])
        squares[name] = LENGTH * np.mean(4 * sums**2) * np.sum(BY_TOKEN**2)
    for r1, r2 in ((0.4, 0.0), (0.0, 0.6)):
        (total, metrics), _ = losses_of(r1=r1, r2=r2)
        assert mean(total) - mean(plain) == pytest.approx((r1 * squares["r1"] + r2 * squares["r2"]) / 2, rel=1e-4)
        for name in metrics.keys() & {"r1", "r2"}:
            assert mean(metrics[name]) == pytest.approx(squares[name], rel=1e-4)


@pytest.mark.parametrize(("name", "allocation"), [("js", "weights"), ("js", "counts"), ("relativistic", "weights")])
def test_penalties_are_half_the_mean_squared_slope(name, allocation):
    options = {"generator_loss": name, "allocation": allocation, "real_prior": 0.25}
    plain = mean(loss_of(build(**options)[0], "critic", *build(**options)[1:])[0])
    slope = float((WEIGHTS**2).sum())
    for r1, r2 in ((0.4, 0.0), (0.0, 0.6), (0.4, 0.6)):
        objective, params, carry = build(**options, r1=r1, r2=r2)
        total, metrics = loss_of(objective, "critic", params, carry)
        assert mean(total) == pytest.approx(plain + (r1 + r2) / 2 * slope, rel=1e-5)
        assert [mean(metrics[side]) for side, weight in (("r1", r1), ("r2", r2)) if weight] == pytest.approx(
            [slope] * ((r1 > 0) + (r2 > 0))
        )


@pytest.mark.parametrize("side", ["r1", "r2"])
def test_r1_penalises_slopes_at_data_and_r2_at_samples(side):
    """The slope of a quadratic critic, 2 w x, is that of the points where it is taken."""
    plain = mean(loss_of(build(QUADRATIC)[0], "critic", *build(QUADRATIC)[1:])[0])
    objective, params, carry = build(QUADRATIC, **{side: 0.5})
    points = {"r1": np.asarray(BATCH["points"]), "r2": samples(params)}
    squared = {name: np.square(2 * WEIGHTS * x).sum(1).mean() for name, x in points.items()}
    total, metrics = loss_of(objective, "critic", params, carry)
    assert abs(squared["r1"] - squared["r2"]) > 0.1 * squared["r1"]
    assert metrics.keys() & {"r1", "r2"} == {side}
    assert mean(metrics[side]) == pytest.approx(squared[side], rel=1e-5)
    assert mean(total) == pytest.approx(plain + 0.25 * squared[side], rel=1e-5)


def test_the_bound_and_the_prior_of_the_logistic_loss():
    pi = 0.2
    objective, params, carry = build(real_prior=pi)
    offset = np.log(pi / (1 - pi))
    real, fake = offset + np.asarray(BATCH["points"]) @ WEIGHTS, offset + samples(params) @ WEIGHTS
    total, metrics = loss_of(objective, "critic", params, carry)
    expected = pi * softplus(-real).mean() + (1 - pi) * softplus(fake).mean()
    assert mean(total) == pytest.approx(expected, rel=1e-5)
    assert mean(metrics["bound"]) == pytest.approx(-pi * np.log(pi) - (1 - pi) * np.log(1 - pi) - expected, abs=1e-5)


COSTS = {  # of logits x at the prior pi
    "js": lambda x, pi: -softplus(x) / pi,
    "non_saturating": lambda x, pi: softplus(-x),
    "reverse_kl": lambda x, pi: -x,
    "forward_kl": lambda x, pi: -np.exp(x) * (1 - pi) / pi,
    "hinge": lambda x, pi: -x,
    "relativistic": lambda x, pi: softplus(0.5 - x),  # against real logits of 0.5
}


@pytest.mark.parametrize("name", COSTS)
def test_every_game_has_its_cost_and_rewards_are_minus_the_cost(name):
    assert set(COSTS) == set(GAMES) == {*LOG_RATIO_GAMES, *OTHER_GAMES}
    pi, logits = 0.3, np.linspace(-2, 3, 6, dtype=np.float32)
    game = GAMES[name]
    expected = COSTS[name](logits.astype(np.float64), pi)
    np.testing.assert_allclose(game.cost(jnp.asarray(logits), pi, jnp.full(6, 0.5)), expected, rtol=1e-5)
    assert game.log_ratio == (name in LOG_RATIO_GAMES)
    assert game.normalised == (name == "forward_kl") and game.paired == (name == "relativistic")
    if game.log_ratio:
        estimator = build(generator_loss=name, real_prior=pi)[0].estimator
        np.testing.assert_allclose(estimator.reward(jnp.asarray(logits)), -expected, rtol=1e-5)
        real, fake = game.critic_loss(jnp.asarray(logits), jnp.asarray(logits), pi, 0.0)
        np.testing.assert_allclose(real, 2 * pi * softplus(-logits), rtol=1e-5)
        np.testing.assert_allclose(fake, 2 * (1 - pi) * softplus(logits), rtol=1e-5)


@pytest.mark.parametrize("spec", [SPEC, TextSpec(5, 4)], ids=["points", "sequences"])
def test_a_critic_of_layers_starts_at_0_on_random_features(spec):
    config = settings()
    network = mlp.critic(config.critic, spec)
    params = network.init(jax.random.key(2))
    examples = jnp.asarray(np.random.default_rng(4).normal(0, 9, (20, spec.length)))
    examples = examples if spec is SPEC else jnp.abs(examples).astype(jnp.int32) % spec.vocab
    assert not network.apply(params, examples).any()
    hidden = [params[f"layer_{number}"] for number in range(config.critic.layers)]
    assert all(layer["kernel"].all() and layer["bias"].all() for layer in hidden)


def test_the_critic_s_rate_scales_its_own_step_alone():
    config = settings(critic_rate=3.0)
    config.data.batch_size, config.optimizer.name, config.optimizer.clip_norm = ROWS, "sgd", 0.0
    for player, (distance, by_gradient) in first_moves(config, SPEC, BATCH).items():
        assert distance == pytest.approx(by_gradient * (3 if player == "critic" else 1), rel=1e-4), player
        assert distance > 0


@pytest.mark.parametrize(("pi", "smoothing"), [(0.3, 0.1), (0.7, 0.4)])
def test_label_smoothing_has_the_optimum_that_is_told(pi, smoothing):
    random = np.random.default_rng(1)
    p, q = random.dirichlet(np.ones(9), 2)
    best = (1 - smoothing) * pi * p / (pi * p + (1 - pi) * q)

    def population(logits):
        real, fake = losses.critic_nll(logits, logits, pi, smoothing)
        return jnp.sum(p * real + q * fake)

    slope = jax.jit(jax.grad(population))
    assert np.abs(slope(jnp.asarray(np.log(best / (1 - best)), jnp.float32))).max() < 1e-6
    plain = pi * p / (pi * p + (1 - pi) * q)
    assert np.abs(slope(jnp.asarray(np.log(plain / (1 - plain)), jnp.float32))).max() > 1e-3


def test_spectral_normalisation_bounds_what_both_players_see_and_its_vectors_follow():
    objective, params, carry = build(critic=None, spectral_norm=True, critic_steps=2, r1=0.1)
    random, refresh = np.random.default_rng(2), jax.jit(spectral.refresh, static_argnums=2)

    def noisy(x):
        return jnp.asarray(random.normal(size=x.shape) + 0.1, jnp.float32)

    params = {**params, "critic": jax.tree.map(noisy, params["critic"])}
    for _ in range(50):
        carry = {**carry, "spectral": refresh(params["critic"], carry["spectral"], 2)}
    larger = {**params, "critic": jax.tree_util.tree_map_with_path(times_five, params["critic"])}
    for player in ("critic", "generator"):
        bounded = [mean(loss_of(objective, player, each, carry)[0]) for each in (params, larger)]
        assert bounded[0] == pytest.approx(bounded[1], rel=1e-4)
        free = [mean(loss_of(objective, player, each, {**carry, "spectral": {}})[0]) for each in (params, larger)]
        assert free[0] != pytest.approx(free[1], rel=1e-2)
    new = {**params, "critic": jax.tree.map(noisy, params["critic"])}
    after = jax.jit(lambda carry, params: objective.remember(carry, {}, params))(carry, new)["spectral"]
    jax.tree.map(np.testing.assert_array_equal, after, refresh(new["critic"], carry["spectral"], 2))
    assert any(not np.array_equal(after[name], carry["spectral"][name]) for name in after)


def times_five(path, leaf):
    return 5 * leaf if "kernel" in str(path) else leaf


def test_the_moving_baseline_follows_the_rewards():
    objective, _, carry = build(baseline_decay=0.75)
    metrics = {"generator/to_come": losses.masked_sum(jnp.asarray([1.0, 3.0]), jnp.ones(2, bool))}
    once = objective.remember(carry, metrics, {"critic": {}})
    assert float(once["baseline"]) == pytest.approx(0.25 * 2)
    assert float(objective.remember(once, metrics, {"critic": {}})["baseline"]) == pytest.approx(0.75 * 0.5 + 0.25 * 2)


def test_the_critic_and_the_generator_see_augmented_pictures_and_the_report_plain_ones():
    config = settings(augment=("brightness",))
    config.data.name, config.model.name, config.critic.name, config.model.width = "digits", "dcgan", "dcgan", 2
    objective = plugins.load("objectives", "adversarial").build(config, ImageSpec(17, 64, shape=(8, 8, 1)))
    seen = []

    def look(params, x, context=None, keys=None):
        seen.append(np.asarray(x))
        return jnp.zeros((len(x), 1))

    flat = Sampler(lambda key: {}, lambda params, keys, context=None: jnp.zeros((len(keys), 8, 8, 1)))
    objective = with_critic(objective, Critic(lambda key: {}, look), flat)
    batch = {"tokens": jnp.full((6, 64), 8), "mask": jnp.ones((6, 64), bool), "row": jnp.arange(6)}
    params, carry = objective.init(KEY, batch)
    for player in ("critic", "generator"):
        _, metrics = objective.loss(player, params, carry, batch, KEY, 0)
    shades = [x[:, 0, 0, 0] for x in seen]
    assert len(seen) == 3  # data and samples by the critic, samples by the generator
    assert all(np.ptp(x.reshape(6, -1), axis=1).max() < 1e-6 for x in seen)  # 8 of 0..16 is grey, and so are samples
    assert all(len(np.unique(shade)) == 6 for shade in shades) and not np.array_equal(*shades[:2])
    assert mean(metrics["logit"]) == 0 and float(metrics["apart"].total) == 0
