"""Monte Carlo estimates against the exact divergences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import divergences as d
from tests.divergences.reference import SEEDS, random_pair


@pytest.mark.parametrize("seed", SEEDS)
def test_monte_carlo_within_four_standard_errors(seed):
    p, q = random_pair(seed)
    random = np.random.default_rng(seed + 100)
    real, fake = random.choice(6, (50, 4000), p=p), random.choice(6, (50, 2000), p=q)
    log_p, log_q = np.log(p), np.log(q)
    for estimate, exact in [
        (d.monte_carlo_kl(log_p[real], log_q[real]), d.kl(p, q)),
        *(
            (d.monte_carlo_js(log_p[real], log_q[real], log_p[fake], log_q[fake], pi), d.js(p, q, pi))
            for pi in (0.01, 0.5, 0.9)
        ),
    ]:
        assert np.abs(estimate.value[0] - exact) < 4 * estimate.standard_error[0]
        spread = np.std(estimate.value, ddof=1)  # fifty estimates scatter as each of them says, to a tenth or two
        assert 0.6 < spread / np.mean(estimate.standard_error) < 1.5
        assert abs(estimate.value.mean() - exact) < 4 * spread / 50**0.5


def test_the_standard_error_of_few_samples_is_not_too_small():
    """Its square is the unbiased variance by the number of samples; the errors of JS_pi's two means add in squares."""
    kl = d.monte_carlo_kl(np.asarray([1.0, 3.0]), np.zeros(2))
    assert kl == (2.0, pytest.approx(1.0))  # a variance of 2, of two samples
    weights, ratios = np.asarray([0.3, 0.7]), np.asarray([[1.0, 3.0], [0.5, -1.0]])  # log P/Q at P, at Q
    over_mixture = [-np.log(0.3 + 0.7 * np.exp(-ratios[0])), -np.log(0.7 + 0.3 * np.exp(ratios[1]))]
    variances = [((terms - terms.mean()) ** 2).sum() / 2 for terms in over_mixture]
    js = d.monte_carlo_js(ratios[0], np.zeros(2), ratios[1], np.zeros(2), 0.3)
    assert js.standard_error == pytest.approx(np.sqrt(weights**2 @ variances))


def test_one_sample_has_no_standard_error():
    with pytest.raises(ValueError, match="two samples or more, not 1"):
        d.monte_carlo_kl(np.zeros(1), np.zeros(1))


@pytest.mark.parametrize("asarray", [np.asarray, lambda x: jnp.asarray(x, jnp.float32)])
def test_an_infinite_estimate_has_an_infinite_error(asarray):
    """Rows of samples of P: Q cannot make one of the first row's."""
    log_p, log_q = np.log([[0.5, 0.5], [0.5, 0.5]]), np.asarray([[-np.inf, 0.0], np.log([0.25, 0.75])])
    value, standard_error = d.monte_carlo_kl(asarray(log_p), asarray(log_q))
    assert value[0] == standard_error[0] == np.inf
    np.testing.assert_allclose(value[1], np.mean(np.log([2, 2 / 3])), rtol=1e-6)
    np.testing.assert_allclose(standard_error[1], np.log(3) / 2, rtol=1e-6)


P, Q = np.asarray([0.5, 0.5, 0]), np.asarray([0, 0.5, 0.5])  # each makes something that the other cannot


def samples_that_one_cannot_make():
    """log P and log Q at two samples of P, then at two of Q: as often as each says."""
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log(P), np.log(Q)
    return log_p[[0, 1]], log_q[[0, 1]], log_p[[1, 2]], log_q[[1, 2]]


@pytest.mark.parametrize("asarray", [np.asarray, lambda x: jnp.asarray(x, jnp.float32)])
@pytest.mark.parametrize("pi", [0, 1e-9, 0.3, 0.5, 1 - 1e-9, 1])
def test_a_sample_that_the_other_cannot_make_is_no_nan(pi, asarray):
    """JS_pi is at most H[(pi, 1 - pi)], so it is finite here, and 0 at both ends."""
    value, standard_error = d.monte_carlo_js(*map(asarray, samples_that_one_cannot_make()), pi)
    np.testing.assert_allclose(value, d.js(P, Q, pi), rtol=1e-6, atol=0 if pi in (0, 1) else 1e-7)
    assert np.isfinite(standard_error) and (standard_error == 0) == (pi in (0, 1))


@pytest.mark.parametrize("pi", [0.0, 0.5, 1.0])
def test_gradients_at_such_a_sample_are_no_nan(pi):
    log_densities = [jnp.asarray(x, jnp.float32) for x in samples_that_one_cannot_make()]
    value = lambda *arguments: d.monte_carlo_js(*arguments, pi).value
    for gradient in jax.jit(jax.grad(value, (0, 1, 2, 3)))(*log_densities):
        assert np.all(np.isfinite(gradient))
