"""Worlds are what they say: samples, log-probabilities, next-token laws and tables agree, and brute force with them."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from configs import base
from gentrain import worlds
from gentrain.errors import ConfigError, DataError
from gentrain.worlds import GaussianMixture, HiddenMarkov, Markov, Oracle, Table, oracle, points, table

SEQUENCES = ("table", "markov", "hmm", "oracle")
POINTS = ("gaussian", "bimodal", "blobs", "ring", "grid")


def build(name, **keys):
    section = base.get_config().data.world
    section.update(keys)
    return worlds.build(name, section)


def small(name, seed):
    """Every string of it can be looked at: 3^4 = 81."""
    return build(name, vocab=3, length=4, states=2, seed=seed)


def strings(vocab, length):
    return np.array(list(itertools.product(range(vocab), repeat=length)))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SEQUENCES)
def test_log_prob_normalises_and_is_the_table(name, seed):
    world = small(name, seed)
    p, log_p = world.probabilities(), world.log_prob(strings(3, 4))
    assert p.shape == (3, 3, 3, 3) and world.enumerable
    assert math.isclose(np.exp(log_p).sum(), 1, rel_tol=1e-12)
    np.testing.assert_allclose(np.exp(log_p), p.ravel(), rtol=1e-10, atol=1e-300)
    assert world.entropy() == pytest.approx(-np.sum(p.ravel() * log_p), rel=1e-10)


@pytest.mark.parametrize("name", SEQUENCES)
def test_next_laws_are_the_conditionals_of_the_table_and_chain_up_to_log_prob(name):
    world, x = small(name, 2), strings(3, 4)
    p, steps = world.probabilities(), world.step_log_probs(x)
    for t in range(4):
        joint = p.sum(axis=tuple(range(t + 1, 4)))
        law = joint / joint.sum(-1, keepdims=True)
        np.testing.assert_allclose(
            np.exp(steps[:, t]), np.broadcast_to(law[tuple(x[:, :t].T)], (81, 3)), rtol=1e-9, atol=1e-300
        )
        np.testing.assert_allclose(world.next_log_probs(x[:, :t]), steps[:, t], rtol=1e-12)
    chained = np.take_along_axis(steps, x[..., None], axis=-1).sum((1, 2))
    np.testing.assert_allclose(chained, world.log_prob(x), rtol=1e-12)


@pytest.mark.parametrize("name", SEQUENCES)
def test_frequencies_of_samples_are_the_probabilities(name):
    world, n = small(name, 3), 50_000
    p = world.probabilities()
    x = world.sample(np.random.default_rng(4), n)
    assert x.dtype == np.int32 and x.shape == (n, 4)
    counts = np.zeros_like(p)
    np.add.at(counts, tuple(x.T), 1)
    # 5 sigma of a binomial; rare cells are Poisson, whose tail is longer than sigma says.
    assert np.all(np.abs(counts - n * p) < 5 * np.sqrt(n * p * (1 - p)) + 5)
    np.testing.assert_array_equal(x, world.sample(np.random.default_rng(4), n))


def test_a_world_is_drawn_from_its_own_seed():
    for name in SEQUENCES:
        assert np.abs(small(name, 0).probabilities() - small(name, 1).probabilities()).max() > 0.01
        np.testing.assert_array_equal(small(name, 5).probabilities(), small(name, 5).probabilities())


def test_blocks_change_nothing(monkeypatch):
    world, x = small("oracle", 0), strings(3, 4)
    whole = world.sample(np.random.default_rng(0), 1), world.log_prob(x)
    monkeypatch.setattr(table, "BLOCK", 3 * 7)  # seven sequences at once
    assert [block.stop - block.start for block in world.blocks(81)] == [7] * 11 + [4]
    np.testing.assert_array_equal(world.sample(np.random.default_rng(0), 1), whole[0])
    np.testing.assert_allclose(world.log_prob(x), whole[1], rtol=1e-12)
    counts = np.bincount(world.sample(np.random.default_rng(1), 5000)[:, 0], minlength=3) / 5000
    p = world.probabilities().sum((1, 2, 3))
    assert np.all(np.abs(counts - p) < 5 * np.sqrt(p * (1 - p) / 5000))


def test_a_table_with_impossible_strings():
    p = np.array([[0.5, 0.25, 0], [0, 0, 0], [0.25, 0, 0]])
    world = Table(p)
    np.testing.assert_array_equal(world.probabilities(), p)
    np.testing.assert_allclose(world.log_prob(np.array([[0, 2], [1, 1], [0, 0]])), [-np.inf, -np.inf, np.log(0.5)])
    np.testing.assert_allclose(worlds.conditionals(p)[1], [[2 / 3, 1 / 3, 0], [0.75, 0.25, 0], [1, 0, 0]])
    x = world.sample(np.random.default_rng(0), 1000)
    assert set(map(tuple, x.tolist())) == {(0, 0), (0, 1), (2, 0)}


def test_markov_is_its_product_and_its_entropy_needs_no_enumeration():
    world = build("markov", vocab=4, length=5, concentration=1.0, seed=6)
    x = strings(4, 5)
    direct = world.initial[x[:, 0]] * np.prod([world.transition[x[:, t], x[:, t + 1]] for t in range(4)], axis=0)
    np.testing.assert_allclose(np.exp(world.log_prob(x)), direct, rtol=1e-12)
    assert world.entropy() == pytest.approx(-np.sum(direct * np.log(direct)), rel=1e-12)
    large = build("markov", vocab=50, length=100)
    assert not large.enumerable and 0 < large.entropy() < 100 * math.log(50)


def test_hmm_by_brute_force_over_hidden_states():
    rng = np.random.default_rng(7)
    start, move, emit = rng.dirichlet([1, 1, 1]), rng.dirichlet([1, 1, 1], 3), rng.dirichlet([1, 1], 3)
    world = HiddenMarkov(start, move, emit, length=4)
    for x in strings(2, 4):
        total = sum(
            start[z[0]]
            * math.prod(emit[z[t], x[t]] for t in range(4))
            * math.prod(move[z[t], z[t + 1]] for t in range(3))
            for z in itertools.product(range(3), repeat=4)
        )
        assert world.log_prob(x[None])[0] == pytest.approx(math.log(total), rel=1e-12)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def naive_oracle(w, tokens):
    """log P of the LSTM of SeqGAN's benchmark with weights w, one sequence and one gate at a time."""
    h, c, total = np.zeros(len(w["Ui"])), np.zeros(len(w["Ui"])), 0.0
    for fed, token in zip([0, *tokens[:-1]], tokens, strict=True):
        x = w["emb"][fed]
        i, f, o = (sigmoid(x @ w["W" + g] + h @ w["U" + g] + w["b" + g]) for g in ("i", "f", "og"))
        c = f * c + i * np.tanh(x @ w["Wc"] + h @ w["Uc"] + w["bc"])
        h = o * np.tanh(c)
        logits = h @ w["Wo"] + w["bo"]
        total += logits[token] - np.log(np.exp(logits).sum())
    return total


def test_oracle_is_the_lstm_of_the_benchmark():
    weights = oracle.random_weights(np.random.default_rng(8), vocab=11, width=5)
    world = Oracle(weights, length=6)
    x = world.sample(np.random.default_rng(9), 20)
    np.testing.assert_allclose(world.log_prob(x), [naive_oracle(weights, row) for row in x], rtol=1e-12)
    standard = np.concatenate([w.ravel() for w in oracle.random_weights(np.random.default_rng(0), vocab=500).values()])
    assert abs(standard.mean()) < 0.03 and abs(standard.std() - 1) < 0.03


def test_oracle_entropy_by_enumeration_and_by_samples():
    world = build("oracle", vocab=6, length=5, seed=10)
    nll = -world.log_prob(world.sample(np.random.default_rng(11), 20_000))
    assert abs(nll.mean() - world.entropy()) < 5 * nll.std() / math.sqrt(len(nll))
    assert 0.1 < world.entropy() / 5 < math.log(6)
    default = build("oracle")
    assert (default.vocab, default.length, default.hidden, default.enumerable) == (5000, 20, 32, False)
    nll = -default.log_prob(default.sample(np.random.default_rng(12), 64)) / 20
    assert 5 < nll.mean() < 7  # the benchmark's own draw of weights has 5.75 nats a token


def test_oracle_from_a_file(tmp_path):
    weights = oracle.random_weights(np.random.default_rng(13), vocab=7, width=4)
    np.savez(tmp_path / "oracle.npz", **{name: value.astype(np.float32) for name, value in weights.items()})
    world = build("oracle", path=str(tmp_path / "oracle.npz"), length=3)
    assert (world.vocab, world.length) == (7, 3)
    np.testing.assert_allclose(world.probabilities(), Oracle(weights, 3).probabilities(), rtol=1e-4)
    with pytest.raises(ConfigError, match=r"vocab is 5.* has 7"):
        build("oracle", path=str(tmp_path / "oracle.npz"), vocab=5)


def test_files_that_are_no_oracle(tmp_path):
    path = str(tmp_path / "oracle.npz")
    with pytest.raises(DataError, match="no readable"):
        build("oracle", path=path)
    weights = oracle.random_weights(np.random.default_rng(14), vocab=7, width=4)
    np.savez(path, **(weights | {"Wo": np.zeros((5, 7))}))
    with pytest.raises(DataError, match=r"has shape .*; expected"):
        build("oracle", path=path)
    np.savez(path, **{name: value for name, value in weights.items() if name != "bog"})
    with pytest.raises(DataError, match="missing: bog"):
        build("oracle", path=path)
    np.savez(path, **(weights | {"bo": np.array([{}], dtype=object)}))
    with pytest.raises(DataError, match="no readable"):
        build("oracle", path=path)


@pytest.mark.parametrize("name", POINTS)
def test_densities_integrate_to_one(name):
    world = build(name)
    mean, covariance = world.moments()
    # Equal steps well below the narrowest mode; ring and grid are summed around one of their modes.
    alone = name in ("ring", "grid")
    sd = math.sqrt(np.linalg.eigvalsh(world.covariances).min())
    reach = 10 * (sd if alone else math.sqrt(covariance.max()))
    axis = np.arange(-reach, reach, sd / 3)
    x = np.stack(np.meshgrid(*[axis] * world.dimension), axis=-1).reshape(-1, world.dimension)
    x = x + (world.means[1] if alone else mean)
    total = np.exp(world.log_prob(x)).sum() * (sd / 3) ** world.dimension
    assert total == pytest.approx(world.weights[1] if alone else 1, abs=1e-9)


@pytest.mark.parametrize("name", POINTS)
def test_points_have_the_moments_of_their_law(name):
    world, n = build(name), 40_000
    x = world.sample(np.random.default_rng(15), n)
    mean, covariance = world.moments()
    assert x.shape == (n, world.dimension)
    assert np.all(np.abs(x.mean(0) - mean) < 5 * np.sqrt(np.diag(covariance) / n))
    squares = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    assert np.all(np.abs(squares.mean(0) - covariance) < 5 * squares.std(0) / math.sqrt(n))
    nll = -world.log_prob(x)
    if len(world.weights) == 1:
        assert abs(nll.mean() - world.entropy()) < 5 * nll.std() / math.sqrt(n)
    else:
        with pytest.raises(ConfigError, match="no closed form"):
            world.entropy()


def test_mixture_density_on_fresh_laws():
    rng = np.random.default_rng(16)
    weights, means, roots = rng.dirichlet([2, 2, 2]), rng.normal(size=(3, 2)), rng.normal(size=(3, 2, 2))
    covariances = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(2)
    x = rng.normal(size=(50, 2))
    direct = sum(w * multivariate_normal(m, c).pdf(x) for w, m, c in zip(weights, means, covariances, strict=True))
    np.testing.assert_allclose(GaussianMixture(weights, means, covariances).log_prob(x), np.log(direct), rtol=1e-10)


def test_the_named_mixtures():
    np.testing.assert_allclose(np.linalg.norm(points.ring().means, axis=1), 1)
    assert len(points.ring().weights) == 8
    assert {tuple(mean) for mean in points.grid().means} == set(itertools.product((-4, -2, 0, 2, 4), repeat=2))
    mean, covariance = points.bimodal().moments()
    assert (mean[0], math.sqrt(covariance[0, 0])) == (pytest.approx(-0.2), pytest.approx(2.3130, abs=5e-5))
    np.testing.assert_array_equal(build("gaussian").covariances[0], [[1, 0.9], [0.9, 1]])


def test_a_table_given_in_the_config():
    world = build("table", probabilities=((0.4, 0.1), (0.1, 0.4)))
    np.testing.assert_array_equal(world.probabilities(), [[0.4, 0.1], [0.1, 0.4]])
    with pytest.raises(ConfigError, match="leave them 0"):
        build("table", probabilities=((0.4, 0.1), (0.1, 0.4)), vocab=3)
    with pytest.raises(ConfigError, match="not nested like a table"):
        build("table", probabilities=((0.5, 0.1), (0.4,)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: build("tabel"), "no world is named 'tabel'; there are: table, markov, hmm, oracle, gaussian"),
        (lambda: build("table", vocab=10, length=7), "too large"),
        (lambda: build("markov", vocab=10, length=7).probabilities(), "too many to enumerate"),
        (lambda: build("hmm", vocab=10, length=7).entropy(), "too many to enumerate"),
        (lambda: build("hmm", states=0), "^data.world.states is 0"),
        (lambda: build("table", vocab=-1), "^data.world.vocab is -1"),
        (lambda: build("oracle", length=-1), "^data.world.length is -1"),
        (lambda: build("markov", concentration=0.0), "^data.world.concentration is 0"),
        (lambda: build("gaussian", covariance=((1.0, 2.0), (2.0, 1.0))), "positive definite"),
        (lambda: build("gaussian", covariance=((1.0, 0.5), (0.2, 1.0))), "symmetric"),
        (lambda: build("gaussian", covariance=(1.0, 1.0)), "rows of d numbers"),
        (lambda: Table(np.full((2, 2), 0.3)), "sums to 1"),
        (lambda: Markov(np.array([0.5, 0.6]), np.eye(2), 3), "initial"),
        (lambda: small("table", 0).log_prob(np.zeros((2, 3), int)), r"shape \(2, 3\)"),
        (lambda: small("table", 0).log_prob(np.full((1, 4), 3)), "not all in 0..2"),
        (lambda: small("markov", 0).next_log_probs(np.zeros((1, 4), int)), r"shape \(1, 4\)"),
        (lambda: points.ring().log_prob(np.zeros((3, 1))), r"shape \(3, 1\)"),
    ],
)
def test_what_cannot_be_is_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
