"""The likelihood objective: the loss it names, over the tokens that count, with dropout by example."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import losses
from gentrain.models import feeding
from gentrain.objectives import likelihood
from tests.helpers import ragged_batch


def compiled_loss(config, spec, batch):
    """(objective, parameters, loss): loss(batch, key) -> (Sum, metrics)."""
    objective = likelihood.build(config, spec)
    params, _ = objective.init(jax.random.key(1), batch)
    return objective, params, jax.jit(lambda batch, key: objective.loss("generator", params, {}, batch, key, 0))


def test_it_is_the_smoothed_loss_and_the_plain_nll_of_the_tokens_that_count(config, spec):
    config.likelihood.label_smoothing, config.likelihood.z_loss = 0.2, 0.3
    spec, batch = dataclasses.replace(spec, context_vocab=3), ragged_batch(spec, 8, 0)
    batch["context"] = np.arange(8, dtype=np.int32)[:, None] % 3
    objective, params, loss = compiled_loss(config, spec, batch)
    total, metrics = loss(batch, jax.random.key(0))
    inputs = feeding.shift_right(jnp.asarray(batch["tokens"]), spec.vocab, spec.end)
    logits = jax.jit(objective.model.apply)(params["generator"], inputs, jnp.asarray(batch["context"]))
    scores = losses.score(logits, jnp.asarray(batch["tokens"]))
    for found, values in ((total, losses.smoothed_nll(scores, 0.2, 0.3)), (metrics["nll"], scores.nll)):
        assert found.weight == batch["mask"].sum()
        assert float(found.total) == pytest.approx(float(np.asarray(values)[batch["mask"]].sum()), rel=1e-5)


def test_dropout_differs_by_step_and_by_row_and_not_by_place(config, spec):
    config.model.dropout = 0.5
    batch = jax.tree.map(lambda x: np.repeat(x[:1], 2, 0), ragged_batch(spec, 1, 0))
    _, _, loss = compiled_loss(config, spec, batch)

    def dropped(row, place, step):
        rows = np.full(2, 9, np.int32)
        rows[place] = row
        mask = batch["mask"] & (np.arange(2) == place)[:, None]
        return float(loss({**batch, "row": rows, "mask": mask}, jax.random.key(step))[0].total)

    assert len({dropped(*which) for which in ((0, 0, 0), (1, 0, 0), (0, 0, 1))}) == 3
    assert dropped(0, 0, 0) == pytest.approx(dropped(0, 1, 0), rel=1e-6)
