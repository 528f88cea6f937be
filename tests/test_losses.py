"""Losses against their definitions, written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import losses
from gentrain.models import feeding


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_smoothed_nll_is_its_formula(seed):
    random = np.random.default_rng(seed)
    logits, tokens = random.normal(size=(3, 4, 5)), random.integers(0, 5, (3, 4))
    law = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nll = -np.log(np.take_along_axis(law, tokens[..., None], -1)[..., 0])
    smoothing, z = 0.2, 0.3
    target = (1 - smoothing) * np.eye(5)[tokens] + smoothing / 5
    expected = -(target * np.log(law)).sum(-1) + z * np.log(np.exp(logits).sum(-1)) ** 2
    scores = losses.score(jnp.asarray(logits, jnp.float32), jnp.asarray(tokens))
    np.testing.assert_allclose(losses.smoothed_nll(scores, smoothing, z), expected, rtol=1e-5)
    np.testing.assert_allclose(scores.nll, nll, rtol=1e-5)


def test_cross_entropy_is_its_formula():
    random = np.random.default_rng(0)
    law, q = random.dirichlet(np.ones(5), (2, 3, 4))
    found = losses.cross_entropy(jnp.asarray(law, jnp.float32), jnp.asarray(np.log(q) + 3, jnp.float32))
    np.testing.assert_allclose(found, -(law * np.log(q)).sum(-1), rtol=1e-5)


def test_what_the_mask_hides_is_nowhere_not_even_in_the_gradient():
    values = jnp.asarray([[1.0, jnp.nan], [2.0, jnp.inf]])
    mask = jnp.asarray([[True, False], [True, False]])
    assert losses.masked_sum(values, mask) == (3.0, 2.0)
    gradient = jax.grad(lambda v: losses.masked_sum(v, mask).total)(values)
    assert np.array_equal(gradient, [[1, 0], [1, 0]])


def test_inputs_are_the_tokens_before_and_documents_begin_anew():
    tokens = jnp.asarray([[3, 9, 4, 5, 9, 0], [1, 2, 3, 4, 5, 6]])
    assert feeding.shift_right(tokens, 10, 9).tolist() == [[10, 3, 10, 4, 5, 10], [10, 1, 2, 3, 4, 5]]
    assert feeding.shift_right(tokens, 10, None).tolist()[0] == [10, 3, 9, 4, 5, 9]
