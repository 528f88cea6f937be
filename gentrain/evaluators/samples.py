"""Samples from the generator, to be read or looked at."""

from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

from gentrain import decode, sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import Images, PointSpec
from gentrain.errors import ConfigError
from gentrain.evaluators.base import make_draw
from gentrain.models.base import SequenceModel
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "samples/length": Metric("tokens", None, "mean length of a sample, its end included"),
    "samples/entropy": Metric("nats/token", None, "of the law that samples are drawn from"),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh):
    """Draws sample.count documents, of sample.length tokens at most, or images at sample.temperature, sample.top_k and
    sample.top_p; where the data have contexts, images of each class in turn, and text to the contexts of the first
    rows of the split, at most one for each row, shown beside them. Also measured: samples/length, mean tokens a sample,
    and samples/entropy, nats/token of the law drawn from. A model that draws images whole has neither these numbers nor
    those dials."""
    options, spec, size, model = config.sample, data.spec, config.data.batch_size, objective.model
    count = sharding.whole(mesh, options.count)  # what is not shown is not drawn, but for what makes it divide
    if isinstance(spec, PointSpec):
        raise ConfigError("evaluator 'samples' shows text and images; for points use 'exact'")
    if options.length and spec.end is None:
        raise ConfigError(f"sample.length={options.length} is for documents that end; set it to 0")
    length = options.length or spec.length
    law = partial(decode.filtered, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    draw = make_draw(model, mesh, length, end=spec.end, law=law)
    first_rows = sharding.compile_on(mesh, lambda batch: {name: rows[:count] for name, rows in batch.items()})

    def requests():
        """Batches that have what samples are drawn for."""
        row = np.arange(count)
        if not spec.takes_contexts_from_split:
            classes = {"context": row[:, None] % spec.context_vocab} if spec.context_vocab else {}
            yield {"row": row, "mask": np.ones((count, 1), bool), **classes}
            return
        split = data.split(config.evaluate.split)
        for i in range(min(-(-options.count // size), split.batches)):
            batch = split.batch(i)
            yield sharding.put({**batch, "row": batch["row"] + i * size}, mesh, size)

    def decoded(tokens, mask):
        return spec.decode(tokens[mask & (tokens != spec.end)] if spec.end is not None else tokens[mask])

    def beside_context(sample: str, context: np.ndarray, reference: str) -> str:
        question = spec.decode_context(context)
        return f"{question} -> {sample}" if isinstance(question, str) else f"{sample}  (data: {reference})"

    def evaluate(params, key):
        pairs = []
        for request in requests():
            batch = first_rows(request)
            samples = draw(params["generator"], key, batch["row"], batch.get("context"))
            pairs.append(jax.device_get((samples, batch)))
        samples, batch = jax.tree.map(lambda *parts: np.concatenate(parts), *pairs)
        real = np.flatnonzero(batch["mask"].any(-1))[: options.count]  # not the filler of a split's last batch
        samples, batch = jax.tree.map(lambda rows: rows[real], (samples, batch))
        if not isinstance(model, SequenceModel):
            return {"samples": Images(np.round((samples + 1) * 127.5).astype(np.uint8))}
        shown = [decoded(*row) for row in zip(samples.tokens, samples.mask, strict=True)]
        if spec.takes_contexts_from_split:
            references = [decoded(*row) for row in zip(batch["tokens"], batch["mask"], strict=True)]
            shown = [beside_context(*row) for row in zip(shown, batch["context"], references, strict=True)]
        return {
            "samples": spec.show(shown),
            "samples/length": float(samples.mask.sum(-1).mean()),
            "samples/entropy": float(-samples.log_prob.sum() / samples.mask.sum()),
        }

    return evaluate
