"""Losses of a critic and of a generator: each descends what its name says, at the optimal critic and exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import divergences as d
from gentrain.losses import critic_nll, generator_loss

PRIORS = [0.05, 0.3, 0.5, 0.8, 0.95]
NAMES = ["js", "non_saturating", "reverse_kl", "forward_kl"]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def instance(seed):
    """P and the logits of a tabular softmax Q on six states."""
    p, q = np.random.default_rng(seed).dirichlet(np.ones(6), 2)
    return p, np.log(q)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def slope(function, logits, h=1e-5):
    """The gradient of a function of Q in Q's logits, by central differences in float64."""
    steps = h * np.eye(len(logits))
    return np.asarray([(function(softmax(logits + e)) - function(softmax(logits - e))) / (2 * h) for e in steps])


def descent(values, logits):
    """The gradient of E_Q values with the values held fixed: that of the expectation alone, as in REINFORCE."""
    q = softmax(logits)
    return q * (np.asarray(values) - q @ np.asarray(values))


def at_best_critic(name, p, logits, pi):
    critic = d.optimal_logit(np.log(p), np.log(softmax(logits)), pi)
    return descent(generator_loss(jnp.asarray(critic), name, pi), logits)


def claimed(name, p, pi):
    return {
        "js": lambda q: d.normalised_js(p, q, pi),
        "non_saturating": lambda q: d.kl(pi * p + (1 - pi) * q, p) / (1 - pi),
        "reverse_kl": lambda q: d.kl(q, p),
        "forward_kl": lambda q: d.kl(p, q),
    }[name]


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("pi", PRIORS)
@pytest.mark.parametrize("name", NAMES)
def test_each_generator_loss_descends_its_divergence(name, pi, seed):
    p, logits = instance(seed)
    found, exact = at_best_critic(name, p, logits, pi), slope(claimed(name, p, pi), logits)
    assert cosine(found, exact) > 0.999
    np.testing.assert_allclose(found, exact, atol=1e-7 * np.linalg.norm(exact))


@pytest.mark.parametrize("name", NAMES)
def test_no_loss_passes_for_another_and_the_prior_does_not_turn_round(name):
    p, logits = instance(0)
    for pi in (0.05, 0.95):
        exact = slope(claimed(name, p, pi), logits)
        others = [slope(claimed(other, p, pi), logits) for other in NAMES if other != name]
        found = at_best_critic(name, p, logits, pi)
        assert all(np.linalg.norm(found - other) > 1e-2 * np.linalg.norm(other) for other in others)
        if name in ("js", "non_saturating"):
            swapped = at_best_critic(name, p, logits, 1 - pi)
            assert cosine(swapped, exact) < 0.99
            critic = jnp.asarray(d.optimal_logit(np.log(p), np.log(softmax(logits)), pi))
            misused = descent(generator_loss(critic, "js", 1 - pi), logits)
            assert abs(np.linalg.norm(misused) / np.linalg.norm(found) - 1) > 0.1
        if name == "forward_kl":  # the ratio needs the prior that the critic was trained with
            critic = jnp.asarray(d.optimal_logit(np.log(p), np.log(softmax(logits)), pi))
            misused = descent(generator_loss(critic, name, 1 - pi), logits)
            assert np.linalg.norm(misused - exact) > 0.5 * np.linalg.norm(exact)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_non_saturating_dial_is_turned_the_wrong_way(seed):
    p, logits = instance(seed)
    reverse, forward = slope(lambda q: d.kl(q, p), logits), slope(lambda q: d.kl(p, q), logits)
    near_zero, near_one = (at_best_critic("non_saturating", p, logits, pi) for pi in (1e-7, 1 - 1e-6))
    assert cosine(near_zero, reverse) > 0.9999 > cosine(near_zero, forward)
    chi_square = slope(lambda q: np.sum((q - p) ** 2 / p), logits)
    assert cosine(near_one, chi_square) > 0.9999 > cosine(near_one, reverse)
    np.testing.assert_allclose(near_one, 1e-6 / 2 * chi_square, rtol=1e-3, atol=1e-4 * np.linalg.norm(near_one))
    # The divergence it descends, in its two forms.
    q = softmax(logits)
    for pi in PRIORS:
        np.testing.assert_allclose(
            d.kl(pi * p + (1 - pi) * q, p) / (1 - pi), d.kl(q, p) - d.js(p, q, pi) / (1 - pi), rtol=1e-11
        )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_ends_of_the_dial_are_the_ratio_and_the_logit(seed):
    """-softplus(l) / pi is MaliGAN's importance weight as pi -> 0 and the logit reward as pi -> 1."""
    p, logits = instance(seed)
    forward, reverse = (slope(f, logits) for f in (lambda q: d.kl(p, q), lambda q: d.kl(q, p)))
    np.testing.assert_allclose(at_best_critic("js", p, logits, 1e-10), forward, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(at_best_critic("js", p, logits, 1 - 1e-10), reverse, rtol=1e-6, atol=1e-6)
    pi = 1e-10
    critic = jnp.asarray(d.optimal_logit(np.log(p), np.log(softmax(logits)), pi))
    np.testing.assert_allclose(generator_loss(critic, "js", pi), generator_loss(critic, "forward_kl", pi), rtol=1e-6)


def test_gradient_norms_of_the_six_state_example():
    """Saturating and not, at both ends: unscaled, -softplus(l) vanishes with pi."""
    p, logits = instance(0)
    for pi, saturating, non_saturating in ((0.999, 1.41, 0.16), (0.001, 4.8e-4, 1.56)):
        found = np.linalg.norm(at_best_critic("js", p, logits, pi)) * pi
        np.testing.assert_allclose(found, saturating, rtol=2e-2)
        found = np.linalg.norm(at_best_critic("non_saturating", p, logits, pi))
        np.testing.assert_allclose(found, non_saturating, rtol=4e-2)


@pytest.mark.parametrize("pi, n_real", [(0.05, 10), (0.3, 10), (0.3, 6), (0.8, 10), (0.8, 16)])
def test_the_value_of_the_game_is_js_less_the_entropy_of_the_prior(pi, n_real):
    """In equal halves, and in the ratio of the prior."""
    p, logits = instance(1)
    q = softmax(logits)
    n_fake = 20 - n_real

    def game(critic):
        """The mean over the batch, each example averaged over its law in place of being drawn from it."""
        real, fake = critic_nll(jnp.tile(critic, (n_real, 1)), jnp.tile(critic, (n_fake, 1)), pi)
        return ((real @ p).sum() + (fake @ q).sum()) / (n_real + n_fake)

    best, chance = d.optimal_logit(np.log(p), logits, pi), d.entropy(np.asarray([pi, 1 - pi]))
    np.testing.assert_allclose(game(best) + d.js(p, q, pi), chance, rtol=1e-10)
    np.testing.assert_allclose(game(np.full(6, np.log(pi / (1 - pi)))), chance, rtol=1e-12)
    gradient = jax.grad(game)
    assert np.abs(gradient(best)).max() < 1e-12 < 1e-4 < np.abs(gradient(best + 0.1)).max()


@pytest.mark.parametrize("pi", PRIORS)
def test_critic_weights(pi):
    """2 pi and 2 (1 - pi) for equal halves, 1 for a batch in the ratio of the prior; values one an example."""
    real, fake = jnp.asarray([0.3, -2.0]), jnp.asarray([1.0, 0.0])
    of_real, of_fake = critic_nll(real, fake, pi)
    np.testing.assert_allclose(of_real, 2 * pi * np.log1p(np.exp(-np.asarray(real))), rtol=1e-12)
    np.testing.assert_allclose(of_fake, 2 * (1 - pi) * np.log1p(np.exp(np.asarray(fake))), rtol=1e-12)
    n = round(20 * pi)
    of_real, of_fake = critic_nll(jnp.zeros(n), jnp.zeros(20 - n), pi)
    np.testing.assert_allclose([*of_real, *of_fake], np.log(2), rtol=1e-12)
    of_real, of_fake = critic_nll(jnp.zeros((0,)), jnp.ones(3), 0.0)
    assert of_real.shape == (0,) and np.isfinite(of_fake).all()


@pytest.mark.parametrize("pi", [1e-6, 0.5, 1 - 1e-6])
def test_float32_gradients_are_finite_at_extreme_logits(pi):
    for name in NAMES:
        top = 70 if name == "forward_kl" else 1e4  # the ratio is a ratio: it has no bound but float32's
        extremes = jnp.asarray([-1e4, -100, 0, 1, min(top, 100), top], jnp.float32)
        value, gradient = jax.value_and_grad(lambda x, name=name: generator_loss(x, name, pi).sum())(extremes)
        assert gradient.dtype == jnp.float32 and np.isfinite(value) and np.all(np.isfinite(gradient)), name
    extremes = jnp.asarray([-1e4, 0, 1e4], jnp.float32)
    gradient = jax.grad(lambda x: sum(values.sum() for values in critic_nll(x, x, pi)))(extremes)
    assert np.all(np.isfinite(gradient))


def test_a_traced_prior_and_a_grid_of_priors():
    logits = jnp.linspace(-3, 3, 7)
    for name in NAMES:
        grid = jax.jit(jax.vmap(lambda pi, name=name: generator_loss(logits, name, pi)))(jnp.asarray(PRIORS))
        np.testing.assert_allclose(grid, [generator_loss(logits, name, pi) for pi in PRIORS], rtol=1e-12)


def test_a_loss_that_has_no_value_is_refused():
    logits = jnp.zeros(2)
    with pytest.raises(ValueError, match="no generator loss 'wasserstein': there are js, non_saturating"):
        generator_loss(logits, "wasserstein", 0.5)
    for name, pi in (("js", 0.0), ("forward_kl", 0.0), ("forward_kl", 1.0)):
        with pytest.raises(ValueError, match=f"the {name} generator loss has no value at real_prior {pi}"):
            generator_loss(logits, name, pi)
    np.testing.assert_allclose(generator_loss(logits, "js", 1.0), -np.log(2), rtol=1e-6)
