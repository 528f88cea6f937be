"""Estimators end where their names say, by exact expectations over one token of twelve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain.objectives.token_estimators import ESTIMATORS

VOCAB, TOP = 12, 4


def laws(seed):
    random = np.random.default_rng(seed)
    return tuple(jax.nn.log_softmax(jnp.asarray(random.normal(size=VOCAB))) for _ in range(2))


def expected(name, log_p, logits):
    """The mean over Q of the gradient in Q's logits."""

    def one(logits, token):
        return ESTIMATORS[name](log_p, jax.nn.log_softmax(logits), token, TOP)

    slopes = jax.vmap(jax.grad(one), (None, 0))(logits, jnp.arange(VOCAB))
    return jax.nn.softmax(logits) @ slopes


def reverse(log_p, logits):
    log_q = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_q) * (log_q - log_p))


def forward(log_p, logits):
    return jnp.sum(jnp.exp(log_p) * (log_p - jax.nn.log_softmax(logits)))


@pytest.mark.parametrize("name", ["k1_score", "k2", "top_k_plus_score", "k3_forward_kl"])
def test_the_unbiased_ones_have_the_gradient_of_their_divergence(name):
    with jax.enable_x64(True):
        for seed in range(5):
            log_p, logits = laws(seed)
            divergence = forward if name == "k3_forward_kl" else reverse
            exact = jax.grad(divergence, argnums=1)(log_p, logits)
            np.testing.assert_allclose(expected(name, log_p, logits), exact, atol=1e-12)
            other = jax.grad(reverse if name == "k3_forward_kl" else forward, argnums=1)(log_p, logits)
            assert np.abs(other - exact).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "mass"),
    {"truncated": lambda p: p / np.e, "tail_bucket": lambda p: p, "k2": lambda p: p, "renormalised": None}.items(),
)
def test_the_mass_on_the_top_ends_where_the_name_says(name, mass):
    with jax.enable_x64(True):
        log_p, logits = laws(3)
        top = np.argsort(log_p)[-TOP:]
        descend = jax.jit(lambda logits: logits - 0.5 * expected(name, log_p, logits))
        for _ in range(20_000):
            logits = descend(logits)
        q, p = np.exp(jax.nn.log_softmax(logits)), np.exp(log_p)
        np.testing.assert_allclose(q[top] / q[top].sum(), p[top] / p[top].sum(), atol=1e-4)
        if mass is None:
            shifted = logits.at[top].add(1.0)  # with more mass there it is where it ends, too
            assert jax.nn.softmax(shifted)[top].sum() > q[top].sum() + 0.05
            np.testing.assert_allclose(expected(name, log_p, shifted), 0, atol=1e-8)
        else:
            assert q[top].sum() == pytest.approx(mass(p[top].sum()), abs=1e-4)


def test_the_sum_over_the_top_leaves_less_variance():
    with jax.enable_x64(True):
        log_p, logits = laws(4)
        variance = {}
        for name in ("k1_score", "k2", "top_k_plus_score"):
            slope = jax.grad(lambda logits, token: ESTIMATORS[name](log_p, jax.nn.log_softmax(logits), token, TOP))  # noqa: B023
            slopes = jax.vmap(slope, (None, 0))(logits, jnp.arange(VOCAB))
            q = jax.nn.softmax(logits)
            variance[name] = float(q @ jnp.sum((slopes - (q @ slopes)[None]) ** 2, axis=1))
        assert variance["top_k_plus_score"] < variance["k1_score"]
