"""Negative log-likelihood of held-out data under the generator, in every unit that readers compare."""

import math

import jax
from ml_collections import ConfigDict

from gentrain import sharding
from gentrain.data import Data
from gentrain.losses import masked_sum
from gentrain.metrics import add, mean, paced
from gentrain.models import DensityModel, SequenceModel, shift_right, token_nlls


def build(config: ConfigDict, model: SequenceModel | DensityModel, data: Data, mesh):
    """Teacher-forced -log Q(x_t | x_<t) over a split, named `<split>/…`:

    nll: nats/token; perplexity: exp(nll); for text nats_per_char and bits_per_char (the end of a document counts as a
    character); for images bits_per_dim and nats_per_image. With evaluate.batches, an estimate from that many batches
    of the split.
    """
    name = config.evaluate.split
    split, size, spec = data.split(name), config.data.batch_size, data.spec
    batches = min(config.evaluate.batches or split.batches, split.batches)

    @jax.jit
    def sums(params, batch):
        if isinstance(model, DensityModel):
            return {"nll": masked_sum(-model.log_prob(params, batch["points"]), batch["mask"])}
        inputs = shift_right(batch["tokens"], spec.vocab, spec.end)
        nll = token_nlls(model, params, inputs, batch["tokens"], batch.get("context"))
        return {"nll": masked_sum(nll, batch["mask"])}

    def evaluate(params, key):
        batch = lambda i: sharding.put(split.batch(i), mesh, size)
        total = paced(sums(params["generator"], batch(i)) for i in range(batches))
        nll = mean(add(total)["nll"])
        measured = {"nll": nll, "perplexity": math.exp(min(nll, 700.0))}
        if spec.kind == "points":
            return {f"{name}/nll": nll}
        if spec.kind == "text":
            per_char = nll * split.tokens / split.characters
            measured |= {"nats_per_char": per_char, "bits_per_char": per_char / math.log(2)}
        else:
            measured |= {"bits_per_dim": nll / math.log(2), "nats_per_image": nll * spec.length}
        return {f"{name}/{unit}": value for unit, value in measured.items()}

    return evaluate
