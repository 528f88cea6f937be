"""Quality against diversity over temperatures, in a world that knows the likelihood of samples."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import losses, sharding, sums, worlds
from gentrain.datasets.build import Data
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator, make_draw, sample_rows
from gentrain.models.base import SequenceModel
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "frontier/nll_oracle@<temperature>": Metric("nats/token", None, "-E log P of samples at a temperature"),
    "frontier/nll_test@<temperature>": Metric("nats/token", None, "-E_P log Q at a temperature"),
}

TEMPERATURES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """For each temperature T, nats a token: frontier/nll_oracle@T = -E log P of samples from softmax(logits / T), low
    for likely samples, and frontier/nll_test@T = -E_P log Q_T of held-out data, low for a model that covers them.

    One point of the curve ranks nothing, since sharpening always lowers the first: compare curves, or the least
    nll_oracle under a bound on nll_test (Caccia et al., 2020). From evaluate.examples samples and the whole split.
    Raises ConfigError where the data are not sequences of a known world.
    """
    world = worlds.of(config, "evaluator 'frontier'")
    if not isinstance(world, worlds.SequenceWorld):
        raise ConfigError(f"evaluator 'frontier' is for sequences; {config.data.name} has points")
    model, split, size = objective.model, data.split(config.evaluate.split), config.data.batch_size
    assert isinstance(model, SequenceModel)
    count = config.evaluate.examples
    draw, rows = make_draw(model, mesh, world.length), sample_rows(mesh, count)

    def nll_by_temperature(params, batch, temperatures):
        logits = model.apply(params, model.inputs(batch["tokens"]))

        def nll(temperature):
            return losses.masked_sum(losses.token_nll(logits / temperature, batch["tokens"])[0], batch["mask"])

        return jax.lax.map(nll, temperatures)

    score = sharding.compile_on(mesh, nll_by_temperature)

    def evaluate(params, key):
        generator, values = params["generator"], {}
        put = (sharding.put(split.batch(number), mesh, size) for number in range(split.batches))
        parts = list(sums.paced(score(generator, batch, jnp.asarray(TEMPERATURES)) for batch in put))
        total = np.sum([np.asarray(part.total, np.float64) for part in parts], axis=0)
        weight = np.sum([np.asarray(part.weight, np.float64) for part in parts], axis=0)
        for number, temperature in enumerate(TEMPERATURES):
            samples = draw(generator, jax.random.fold_in(key, number), rows, None, temperature)
            tokens = np.asarray(samples.tokens)[:count]
            values[f"frontier/nll_oracle@{temperature:g}"] = float(-world.log_prob(tokens).mean() / world.length)
            values[f"frontier/nll_test@{temperature:g}"] = sums.mean(sums.Sum(total[number], weight[number]))
        return values

    return evaluate
