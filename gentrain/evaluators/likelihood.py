"""Negative log-likelihood of held-out data under the generator, in every unit that readers compare."""

from ml_collections import ConfigDict

from gentrain import sharding
from gentrain.datasets.build import Data
from gentrain.losses import masked_sum
from gentrain.objectives.base import Objective
from gentrain.sums import Metric, add, mean, paced

METRICS = {
    "<split>/nll": Metric("nats/token", "lower", "negative log-likelihood of held-out data, teacher-forced"),
    "<split>/perplexity": Metric("tokens", "lower", "exp(nll)", restates=True),
    "<split>/nats_per_char": Metric(
        "nats/char", "lower", "nll by characters; the end of a document counts as one", restates=True
    ),
    "<split>/bits_per_char": Metric("bits/char", "lower", "the same in bits", restates=True),
    "<split>/bits_per_dim": Metric("bits/value", "lower", "nll of an image's values, in bits", restates=True),
    "<split>/nats_per_image": Metric("nats/image", "lower", "nll of whole images", restates=True),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh):
    """Teacher-forced -log Q(x_t | x_<t) over a split, named `<split>/…` (see METRICS); of points -log Q(x).

    With evaluate.batches, an estimate from that many batches of the split.
    """
    name, model = config.evaluate.split, objective.model
    split, size = data.split(name), config.data.batch_size
    batches = min(config.evaluate.batches or split.batches, split.batches)

    def batch_sums(params, batch):
        return {"nll": masked_sum(*model.batch_nll(params, batch))}

    compiled = sharding.compile_on(mesh, batch_sums)

    def evaluate(params, key):
        put = (sharding.put(split.batch(i), mesh, size) for i in range(batches))
        total = add(paced(compiled(params["generator"], batch) for batch in put))
        units = data.spec.nll_in_units(mean(total["nll"]), split.tokens / split.characters)
        return {f"{name}/{unit}": value for unit, value in units.items()}

    return evaluate


def verdict(values: dict[str, float]) -> str:
    """Held-out likelihood in the unit people compare, beside the baseline that was measured with it; empty without
    one."""
    for split in ("valid", "test", "train"):
        for name, baseline, unit in (
            ("nll", "best n-gram", "nats/token"),
            ("nats_per_image", "independent pixels", "nats/image"),
        ):
            nll = values.get(f"{split}/{name}")
            bound = values.get(f"baseline/{baseline.replace(' ', '_').replace('-', '')}")
            if nll is not None and bound is not None:
                unit = "nats/char" if values.get(f"{split}/nats_per_char") == nll else unit
                word = "better" if nll < bound else "worse"
                return f"{nll:.3f} {unit} on {split}, {word} than {baseline} ({bound:.3f})"
    return ""
