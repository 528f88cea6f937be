"""Random distributions, and divergences as their definitions say, in float64."""

import numpy as np

PRIORS = np.asarray([0, 1e-9, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-9, 1])
INNER = PRIORS[2:-2]
SEEDS = [0, 1, 2]


def random_pair(seed, states=6, alpha=1.0, shape=()):
    p, q = np.random.default_rng(seed).dirichlet(np.full(states, alpha), (2, *shape))
    return p, q


def naive_kl(p, q):
    return np.sum(p * np.log(p / q), axis=-1)


def naive_js(p, q, pi):
    mixture = pi * p + (1 - pi) * q
    return pi * naive_kl(p, mixture) + (1 - pi) * naive_kl(q, mixture)


def random_tables(seed, vocab=3, length=3, alpha=0.5):
    p, q = random_pair(seed, vocab**length, alpha)
    return p.reshape((vocab,) * length), q.reshape((vocab,) * length)
