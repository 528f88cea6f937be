"""What the tests of several objectives need."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

from gentrain import program, sharding, train, worlds
from gentrain.runtime.signals import Stop


def with_critic(objective, critic, model=None):
    """The same adversarial objective with another critic (and generator)."""
    model = model or objective.model
    judge = dataclasses.replace(objective.judge, critic=critic, model=model)
    estimator = dataclasses.replace(objective.estimator, judge=judge, model=model)
    return dataclasses.replace(objective, judge=judge, estimator=estimator, model=model)


def every_string(vocab, length):
    """(vocab**length, length) int, in the order of a table's cells."""
    return np.indices((vocab,) * length).reshape(length, -1).T


def log_table(p) -> np.ndarray:
    """The parameters of a tabular model that is the law p, an array of shape (vocab,)*length."""
    return np.log(np.concatenate([law.reshape(-1, len(p)) for law in worlds.conditionals(p)]))


def standard_errors(values, exact=0.0) -> float:
    """How many standard errors the mean of the values (n, …) is from the exact one: the root of their mean square."""
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    return float(np.sqrt(np.mean(((values.mean(0) - exact) / np.maximum(error, 1e-9)) ** 2)))


def whole_batch(tokens) -> dict:
    """A batch without padding of tokens (n, length)."""
    tokens = jnp.asarray(tokens)
    return {"tokens": tokens, "mask": jnp.ones(tokens.shape, bool), "row": jnp.arange(len(tokens))}


def mean(total) -> float:
    """What a Sum is the mean of."""
    return float(total.total / total.weight)


def first_moves(config, spec, batch) -> dict:
    """By player: how far the first update of plain gradient descent moves it, and that by its gradient at rate 1."""
    built = program.build(config, spec, sharding.one_device())
    before = jax.device_get(built.init())
    after, metrics = jax.device_get(built.update(built.init(), batch))
    moves = {}
    for player, old in before.params.items():
        squares = jax.tree.map(lambda new, old: np.sum(np.square(new - old)), after.params[player], old)
        by_gradient = config.optimizer.learning_rate * mean(metrics[f"{player}/grad_norm"])
        moves[player] = float(np.sqrt(sum(jax.tree.leaves(squares)))), by_gradient
    return moves


def final_metrics(config, workdir) -> dict:
    """What a whole run measures at its end."""
    train.train(config, workdir, Stop())
    return json.loads((workdir / "report.json").read_text())["final"]
