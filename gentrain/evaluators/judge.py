"""A small LSTM that learns from text and then judges text: by its likelihood, and by what it keeps in mind of it."""

import hashlib
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from gentrain import losses, sharding
from gentrain.datasets.spec import TextSpec
from gentrain.evaluators.base import compile_here, obtain_params
from gentrain.evaluators.texts import Rows
from gentrain.models import lstm
from gentrain.models.base import Params, before_logits
from gentrain.models.layers import sequence_model

RECIPE = 1  # part of a judge's key in the cache: raise it when how one is trained or built changes
WIDTH, BATCH, LEARNING_RATE = 128, 64, 5e-3
SCORED = 256  # rows that are scored at once
LOGITS, FEWEST = 1 << 19, 128  # that are made at once, and of at least so many tokens


class Scores(NamedTuple):
    """Of texts: -log Q of each, nats (n,); its tokens (n,); and the mean of the LSTM's states over them (n, width)."""

    nats: np.ndarray
    tokens: np.ndarray
    embeddings: np.ndarray


class Judge:
    """Learns from texts, `steps` batches of 64 by Adam, and scores others.

    It learns on one device. In a run of several processes each of them does all of it.
    """

    def __init__(self, spec: TextSpec, steps: int):
        self.model = model = sequence_model(lstm.LSTM(lstm.Options(width=WIDTH), spec))
        self.steps = steps
        self.optimizer = optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))

        def loss(params, batch):
            states = before_logits(model, params, model.inputs(batch["tokens"]))
            return self.nats(params, states, batch).sum() / batch["mask"].sum()

        def step(params, state, batch):
            update, state = optimizer.update(jax.grad(loss)(params, batch), state)
            return optax.apply_updates(params, update), state

        def score(params, batch):
            states = before_logits(model, params, model.inputs(batch["tokens"]))
            mask, tokens = batch["mask"], batch["mask"].sum(1, keepdims=True)
            embeddings = (states * mask[:, :, None]).sum(1) / tokens.clip(1)
            return self.nats(params, states, batch).sum(1), embeddings

        self.init, self.step = compile_here(model.init), compile_here(step)
        self.score_on = cache(partial(sharding.by_own_rows, score))  # so many devices

    def nats(self, params: Params, states: Array, batch: dict[str, Array]) -> Array:
        """-log Q of each token, 0 of those that do not count: states (batch, length, width) -> (batch, length).

        Logits are made of a few tokens at a time, so few that they stay near the processor, and made anew for the
        gradient; of tokens that do not count, which come last, hardly any.
        """
        size, most = batch["mask"].size, max(FEWEST, LOGITS // self.model.vocab)
        count = min(size, most)
        order = jnp.argsort(~batch["mask"].reshape(-1), stable=True)
        order = jnp.pad(order, (0, -size % count), constant_values=size).reshape(-1, count)

        @jax.checkpoint
        def of_part(order):
            tokens, counts = (batch[name].reshape(-1).at[order].get(mode="clip") for name in ("tokens", "mask"))
            flat = states.reshape(size, -1).at[order].get(mode="clip")
            nll = lambda: losses.token_nll(self.model.logits(params, flat[None]), tokens[None])[0][0]
            found = jax.lax.cond(counts.any(), nll, lambda: jnp.zeros(count))
            return jnp.where(counts, found, 0.0)

        found = jax.lax.map(of_part, order)
        return jnp.zeros(size).at[order].set(found, mode="drop").reshape(batch["mask"].shape)

    def fit(self, rows: Rows) -> Params:
        """The parameters after training: always the same for the same texts."""
        random, count = np.random.default_rng(0), len(rows.tokens)
        passes = -(-self.steps * BATCH // count)
        order = np.concatenate([random.permutation(count) for _ in range(passes)])
        params = self.init(jax.random.key(0))
        state = self.optimizer.init(params)
        for start in range(0, self.steps * BATCH, BATCH):
            params, state = self.step(params, state, rows.take(order[start : start + BATCH]))
        return params

    def obtain(self, rows: Rows) -> Params:
        """As fit, but found in the cache where a judge has learned from the same texts before."""
        texts = hashlib.sha256(rows.tokens.tobytes() + rows.mask.tobytes()).hexdigest()
        key = ["judge", RECIPE, self.steps, self.model.vocab, rows.tokens.shape, texts]
        return obtain_params(key, self.init, lambda: self.fit(rows))

    def score(self, params: Params, rows: Rows) -> Scores:
        """What the judge makes of texts, a few at a time on each of this process's devices."""
        count, parts = len(rows.tokens), []
        devices = min(jax.local_device_count(), -(-count // SCORED))
        for start in range(0, count, SCORED * devices):
            batch = rows.take(np.arange(start, start + SCORED * devices) % count)  # the last one is filled up
            parts.append(jax.device_get(self.score_on(devices)(params, batch)))
        nats, embeddings = (np.concatenate(part)[:count].astype(np.float64) for part in zip(*parts, strict=True))
        return Scores(nats, rows.mask.sum(1), embeddings)
