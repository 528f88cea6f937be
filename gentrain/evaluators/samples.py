"""Samples from the generator, to be read or looked at."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import decode, sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import Images, PointSpec, Spec
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator, decode_rows, make_draw
from gentrain.models.base import SequenceModel
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "samples/length": Metric("tokens", None, "mean length of a sample, its end included"),
    "samples/entropy": Metric("nats/token", None, "of the law that samples are drawn from"),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """Draws sample.count documents, of sample.length tokens at most, or images at sample.temperature, sample.top_k and
    sample.top_p. Where the data have contexts, images of each class in turn, and text to the contexts of the first rows
    of the split, at most one for each row, shown beside them.

    A model that draws images whole has neither the numbers of METRICS nor those dials. Raises ConfigError for points,
    and for sample.length where documents have no end.
    """
    options, spec, size, model = config.sample, data.spec, config.data.batch_size, objective.model
    count = sharding.round_up(mesh, options.count)  # what is not shown is not drawn, but for what makes it divide
    if isinstance(spec, PointSpec):
        raise ConfigError("evaluator 'samples' shows text and images; for points use 'exact'")
    if options.length and spec.end is None:
        raise ConfigError(f"sample.length={options.length} is for documents that end; set it to 0")
    law = partial(decode.filter_logits, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    draw = make_draw(model, mesh, options.length or spec.length, end=spec.end, law=law)
    first_rows = sharding.compile_on(mesh, lambda batch: {name: rows[:count] for name, rows in batch.items()})

    def requests() -> Iterator[dict[str, Any]]:
        """Batches of rows and contexts that samples are drawn for."""
        if not spec.takes_contexts_from_split:
            yield every_class_in_turn(spec, count)
            return
        split = data.split(config.evaluate.split)
        for number in range(min(-(-options.count // size), split.batches)):
            batch = split.batch(number)
            yield sharding.put({**batch, "row": batch["row"] + number * size}, mesh, size)

    def evaluate(params, key):
        key, pairs = jax.random.fold_in(key, options.seed) if options.seed else key, []
        for request in requests():
            batch = first_rows(request)
            samples = draw(params["generator"], key, batch["row"], batch.get("context"))
            pairs.append(jax.device_get((samples, batch)))
        samples, batch = jax.tree.map(lambda *parts: np.concatenate(parts), *pairs)
        real = np.flatnonzero(batch["mask"].any(-1))[: options.count]  # not the filler of a split's last batch
        samples, batch = jax.tree.map(lambda rows: rows[real], (samples, batch))
        if not isinstance(model, SequenceModel):
            return {"samples": Images(np.round((samples + 1) * 127.5).astype(np.uint8))}
        shown = decode_rows(spec, samples.tokens, samples.mask)
        if spec.takes_contexts_from_split:
            references = decode_rows(spec, batch["tokens"], batch["mask"])
            rows = zip(shown, batch["context"], references, strict=True)
            shown = [beside_context(spec, *row) for row in rows]
        return {
            "samples": spec.show(shown),
            "samples/length": float(samples.mask.sum(-1).mean()),
            "samples/entropy": float(-samples.log_prob.sum() / samples.mask.sum()),
        }

    return evaluate


def every_class_in_turn(spec: Spec, count: int) -> dict[str, np.ndarray]:
    """Rows of a batch whose contexts are the classes in turn, where there are any."""
    row = np.arange(count)
    contexts = {"context": row[:, None] % spec.context_vocab} if spec.context_vocab else {}
    return {"row": row, "mask": np.ones((count, 1), bool), **contexts}


def beside_context(spec: Spec, sample: str, context: np.ndarray, reference: str) -> str:
    """A sample after its context or, where that is a picture, before what the data say of it."""
    question = spec.decode_context(context)
    return f"{question} -> {sample}" if isinstance(question, str) else f"{sample}  (data: {reference})"
