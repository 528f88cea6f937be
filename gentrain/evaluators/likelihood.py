"""Negative log-likelihood of held-out data under the generator, in every unit that readers compare."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import sharding
from gentrain.datasets.build import Data
from gentrain.evaluators.base import Evaluator
from gentrain.losses import masked_sum
from gentrain.models.base import Sampler
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
    "<split>/nll_of_<source>": Metric("nats/token", "lower", "nll of what one source of a mixture has of the split"),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """Teacher-forced -log Q(x_t | x_<t) over a split, named `<split>/…` (see METRICS); of points -log Q(x).

    With evaluate.batches, an estimate from that many batches of the split. Of a mixture, also of each source.
    """
    name, model = config.evaluate.split, objective.model
    assert not isinstance(model, Sampler)
    size, sources = config.data.batch_size, list(data.summary.get("sources", ()))

    def sum_batch(params, batch):
        return {"nll": masked_sum(*model.batch_nll(params, batch))}

    compiled = sharding.compile_on(mesh, sum_batch)

    def nll(params, split):
        batches = min(config.evaluate.batches or split.batches, split.batches)
        put = (sharding.put(split.batch(number), mesh, size) for number in range(batches))
        return mean(add(paced(compiled(params["generator"], batch) for batch in put))["nll"])

    def evaluate(params, key):
        split = data.split(name)
        values = data.spec.nll_in_units(nll(params, split), split.tokens / split.characters)
        if len(sources) > 1:
            of_each = ((source.replace("/", "|"), data.split(f"{name}:{source}")) for source in sources)
            values |= {f"nll_of_{source}": nll(params, part) for source, part in of_each}
        return {f"{name}/{unit}": value for unit, value in values.items()}

    return evaluate


BASELINES = (  # the number, the baseline's name and its metric, the unit of both
    ("nll", "best n-gram", "baseline/best_ngram", "nats/token"),
    ("nats_per_image", "independent pixels", "baseline/independent_pixels", "nats/image"),
)


def verdict(values: dict[str, float]) -> str:
    """Held-out likelihood beside the baseline that was measured with it, in words; empty without one."""
    for split in ("valid", "test", "train"):
        for name, baseline, metric, unit in BASELINES:
            nll, bound = values.get(f"{split}/{name}"), values.get(metric)
            if nll is not None and bound is not None:
                unit = "nats/char" if values.get(f"{split}/nats_per_char") == nll else unit
                word = "better" if nll < bound else "worse"
                return f"{nll:.3f} {unit} on {split}, {word} than {baseline} ({bound:.3f})"
    return ""
