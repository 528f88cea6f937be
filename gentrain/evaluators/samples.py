"""Samples from the generator, to be read or looked at."""

from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

from gentrain import decode, sharding
from gentrain.data import Data
from gentrain.errors import ConfigError
from gentrain.metrics import Images, Texts
from gentrain.models import Sampler, SequenceModel, example_keys


def build(config: ConfigDict, model: SequenceModel | Sampler, data: Data, mesh):
    """Draws sample.count documents, of sample.length tokens at most, or images at sample.temperature, sample.top_k and
    sample.top_p; where the data have contexts, images of each class in turn, and text to the contexts of the first
    rows of the split, at most one for each row, shown beside them. Also measured: samples/length, mean tokens a sample,
    and samples/entropy, nats/token of the law drawn from. A model that draws images whole has neither these numbers nor
    those dials."""
    options, spec, size = config.sample, data.spec, config.data.batch_size
    count = sharding.whole(mesh, options.count)  # what is not shown is not drawn, but for what makes it divide
    if spec.kind == "points":
        raise ConfigError("evaluator 'samples' shows text and images; for points use 'exact'")
    if options.length and spec.end is None:
        raise ConfigError(f"sample.length={options.length} is for documents that end; set it to 0")
    length = options.length or spec.length
    law = partial(decode.filtered, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def draw(params, key, batch):
        batch = sharding.spread({name: rows[:count] for name, rows in batch.items()}, mesh)
        keys = example_keys(key, batch["row"])
        context = batch.get("context")
        if not isinstance(model, SequenceModel):
            return decode.pictures(model, params, keys, spec, context), batch
        return decode.sample(model, params, keys, length, end=spec.end, context=context, law=law), batch

    def asked():
        """Batches that have what samples are drawn for."""
        row = np.arange(count)
        if not spec.context_vocab or (spec.kind == "image" and spec.context_shape == (1,)):
            classes = {"context": row[:, None] % spec.context_vocab} if spec.context_vocab else {}
            yield {"row": row, "mask": np.ones((count, 1), bool), **classes}
            return
        split = data.split(config.evaluate.split)
        for i in range(min(-(-options.count // size), split.batches)):
            batch = split.batch(i)
            yield sharding.put({**batch, "row": batch["row"] + i * size}, mesh, size)

    def closed(tokens, mask):
        return spec.decode(tokens[mask & (tokens != spec.end)] if spec.end is not None else tokens[mask])

    def shown(sample: str, context: np.ndarray, reference: str) -> str:
        question = spec.decode_context(context)
        return f"{question} -> {sample}" if isinstance(question, str) else f"{sample}  (data: {reference})"

    def evaluate(params, key):
        pairs = [jax.device_get(draw(params["generator"], key, batch)) for batch in asked()]
        drawn, batch = jax.tree.map(lambda *parts: np.concatenate(parts), *pairs)
        real = np.flatnonzero(batch["mask"].any(-1))[: options.count]  # not the filler of a split's last batch
        drawn, batch = jax.tree.map(lambda rows: rows[real], (drawn, batch))
        if not isinstance(model, SequenceModel):
            return {"samples": Images(np.round((drawn + 1) * 127.5).astype(np.uint8))}
        decoded = [closed(*row) for row in zip(drawn.tokens, drawn.mask, strict=True)]
        if spec.context_vocab and spec.kind == "text":
            references = [closed(*row) for row in zip(batch["tokens"], batch["mask"], strict=True)]
            decoded = [shown(*row) for row in zip(decoded, batch["context"], references, strict=True)]
        return {
            "samples": Texts(decoded) if spec.kind == "text" else Images(np.stack(decoded)),
            "samples/length": float(drawn.mask.sum(-1).mean()),
            "samples/entropy": float(-drawn.log_prob.sum() / drawn.mask.sum()),
        }

    return evaluate
