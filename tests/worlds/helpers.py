"""What the tests of fixed points and of minimisers need."""

import numpy as np


def random_table(seed, vocab, length, concentration=1.0):
    """A law of strings drawn from a Dirichlet: (vocab,)*length."""
    draw = np.random.default_rng(seed).dirichlet(np.full(vocab**length, concentration))
    return draw.reshape((vocab,) * length)


def marginals(p):
    """P(x_t = v) of every position, (length, vocab)."""
    return np.stack([p.sum(axis=tuple(j for j in range(p.ndim) if j != i)) for i in range(p.ndim)])
