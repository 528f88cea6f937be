"""Exposure bias of a text model: is it worse after its own words than after the data's?"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gentrain import decode, divergences, ngrams, sharding
from gentrain.data import Data
from gentrain.errors import ConfigError
from gentrain.models import SequenceModel, example_keys, shift_right


def build(config: ConfigDict, model: SequenceModel, data: Data, mesh):
    """exposure/on_data and exposure/on_model: the mean of KL[R(. | prefix) || Q(. | prefix)], nats/token, over prefixes
    of held-out rows and over those that the model Q draws itself; exposure/gap, on_model less on_data, and
    exposure/ratio, on_model by on_data: 0 and 1 where there is no exposure bias (EB-C of He et al., 2021). And
    exposure/reverse_kl, the mean of KL[Q(. | prefix) || R(. | prefix)] over Q's own prefixes, which is KL[Q||R] a
    token, as on_data (also told as exposure/forward_kl) estimates KL[P||Q].

    R stands for the law of the data: the Witten-Bell n-gram of order evaluate.ngram_order, learned on train, so what is
    measured includes its own faults, on both kinds of prefixes. Each of evaluate.examples rows counts as a document.
    Raises ConfigError for data that are not unconditional text, and for order 0.
    """
    spec, order, split = data.spec, config.evaluate.ngram_order, data.split(config.evaluate.split)
    if spec.kind != "text" or spec.context_vocab or not order:
        raise ConfigError("evaluator 'exposure' is for text without contexts and needs evaluate.ngram_order, as 5")
    needed = min(-(-config.evaluate.examples // config.data.batch_size), split.batches)

    def log_laws(params, tokens):
        return jax.nn.log_softmax(model.apply(params, shift_right(tokens, spec.vocab, spec.end)), axis=-1)

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def on_data(params, batch):
        return batch["tokens"], batch["mask"], log_laws(params, batch["tokens"])

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def on_model(params, key):
        keys = example_keys(key, sharding.spread(jnp.arange(config.data.batch_size), mesh))
        drawn = decode.sample(model, params, keys, spec.length, end=spec.end)
        return drawn.tokens, drawn.mask, log_laws(params, drawn.tokens)

    def evaluate(params, key):
        own, found = params["generator"], []
        for number in range(needed):
            found.append(on_data(own, sharding.put(split.batch(number), mesh, config.data.batch_size)))
        for number in range(needed):
            found.append(on_model(own, jax.random.fold_in(key, number)))
        tokens, masks, log_q = (np.concatenate(part) for part in zip(*jax.device_get(found), strict=True))
        asked = tokens[masks], np.concatenate([[0], np.cumsum(masks.sum(-1))])
        law = ngrams.laws(data.split("train").documents, asked, spec.vocab, order)
        log_r, log_q = np.log(law), log_q[masks].astype(np.float64)
        apart, backwards = divergences.kl_from_log(log_r, log_q), divergences.kl_from_log(log_q, log_r)
        real = int(masks[: needed * config.data.batch_size].sum())
        told = {"on_data": apart[:real].mean(), "on_model": apart[real:].mean()}
        told |= {"forward_kl": told["on_data"], "reverse_kl": backwards[real:].mean()}
        told |= {"gap": told["on_model"] - told["on_data"], "ratio": told["on_model"] / told["on_data"]}
        return {f"exposure/{name}": float(value) for name, value in told.items()}

    return evaluate
