"""Exposure bias of a text model: is it worse after its own words than after the data's?"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import divergences, sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.evaluators import ngrams
from gentrain.evaluators.base import Evaluator, make_draw
from gentrain.models.base import SequenceModel
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "exposure/on_data": Metric("nats/token", "lower", "KL from an n-gram of the data, after the data's prefixes"),
    "exposure/on_model": Metric("nats/token", "lower", "the same after the model's own prefixes"),
    "exposure/gap": Metric("nats/token", None, "on_model less on_data: 0 where there is no exposure bias"),
    "exposure/ratio": Metric("ratio", None, "on_model by on_data: 1 without exposure bias", restates=True),
    "exposure/forward_kl": Metric("nats/token", "lower", "on_data, as an estimate of KL[P||Q]", restates=True),
    "exposure/reverse_kl": Metric("nats/token", "lower", "KL[Q||n-gram] after the model's own prefixes"),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """exposure/on_data and exposure/on_model: the mean of KL[R(. | prefix) || Q(. | prefix)], nats/token, over prefixes
    of held-out rows and over those that the model Q draws itself; exposure/gap and exposure/ratio, their difference and
    quotient, 0 and 1 where there is no exposure bias (EB-C of He et al., 2021). And exposure/reverse_kl, the mean of
    KL[Q(. | prefix) || R(. | prefix)] over Q's own prefixes, which is KL[Q||R] a token, as on_data (also called
    exposure/forward_kl) estimates KL[P||Q].

    R stands for the law of the data: the Witten-Bell n-gram of order evaluate.exposure.ngram_order, learned on train.
    So what is measured includes the n-gram's own faults, on both kinds of prefixes. Each of evaluate.examples rows
    counts as a document. Raises ConfigError for data that are not unconditional text.
    """
    spec, split, model = data.spec, data.split(config.evaluate.split), objective.model
    if not isinstance(spec, TextSpec) or spec.context_vocab:
        raise ConfigError("evaluator 'exposure' is for text without contexts")
    assert isinstance(model, SequenceModel)
    size, order = config.data.batch_size, config.evaluate.exposure.ngram_order
    batches = min(-(-config.evaluate.examples // size), split.batches)
    draw = make_draw(model, mesh, spec.length, end=spec.end)

    def log_conditionals(params, tokens):
        return jax.nn.log_softmax(model.apply(params, model.inputs(tokens)), axis=-1)

    def score_batch(params, batch):
        return batch["tokens"], batch["mask"], log_conditionals(params, batch["tokens"])

    def score_samples(params, tokens):
        return log_conditionals(params, sharding.spread(tokens, mesh))

    on_data = sharding.compile_on(mesh, score_batch)
    score = sharding.compile_on(mesh, score_samples)

    def on_model(params, key):
        samples = draw(params, key, jnp.arange(size))
        return samples.tokens, samples.mask, score(params, samples.tokens)

    def evaluate(params, key):
        generator, parts = params["generator"], []
        for number in range(batches):
            parts.append(on_data(generator, sharding.put(split.batch(number), mesh, size)))
        for number in range(batches):
            parts.append(on_model(generator, jax.random.fold_in(key, number)))
        tokens, masks, log_q = (np.concatenate(part) for part in zip(*jax.device_get(parts), strict=True))
        documents = tokens[masks], np.concatenate([[0], np.cumsum(masks.sum(-1))])
        conditionals = ngrams.conditionals(data.split("train").pieces, documents, spec.vocab, order)
        log_r, log_q = np.log(conditionals), log_q[masks].astype(np.float64)
        real = int(masks[: batches * size].sum())  # tokens of the data, which stand before those of the model
        return {f"exposure/{name}": float(value) for name, value in gaps(log_r, log_q, real).items()}

    return evaluate


def gaps(log_r: np.ndarray, log_q: np.ndarray, real: int) -> dict[str, np.ndarray]:
    """METRICS from log-conditionals (tokens, vocab) of the reference and of the model, the first `real` on data."""
    forward, reverse = divergences.kl_from_log(log_r, log_q), divergences.kl_from_log(log_q, log_r)
    on_data, on_model = forward[:real].mean(), forward[real:].mean()
    return {
        "on_data": on_data,
        "on_model": on_model,
        "forward_kl": on_data,
        "reverse_kl": reverse[real:].mean(),
        "gap": on_model - on_data,
        "ratio": on_model / on_data,
    }
