"""Quality against diversity over temperatures, in a world that knows the likelihood of samples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gentrain import decode, losses, metrics, models, sharding, worlds
from gentrain.data import Data
from gentrain.errors import ConfigError

TEMPERATURES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)


def build(config: ConfigDict, model: models.SequenceModel, data: Data, mesh):
    """For each temperature T, nats a token: frontier/nll_oracle@T = -E log P of samples from softmax(logits / T), low
    for likely samples, and frontier/nll_test@T = -E_P log Q_T of held-out data, low for a model that covers them.

    One point of the curve ranks nothing, since sharpening always lowers the first: compare curves, or the least
    nll_oracle under a bound on nll_test (Caccia et al., 2020). From evaluate.examples samples and the whole split.
    Raises ConfigError where the data are not sequences of a known world.
    """
    world = worlds.of(config, "evaluator 'frontier'")
    if not isinstance(world, worlds.SequenceWorld):
        raise ConfigError(f"evaluator 'frontier' is for sequences; {config.data.name} has points")
    split, size = data.split(config.evaluate.split), config.data.batch_size

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def draw(params, key, temperature):
        rows = sharding.spread(jnp.arange(sharding.whole(mesh, config.evaluate.examples)), mesh)
        keys = models.example_keys(key, rows)
        return decode.sample(model, params, keys, world.length, law=lambda logits: logits / temperature).tokens

    @jax.jit
    def scores(params, batch, temperatures):
        logits = model.apply(params, models.shift_right(batch["tokens"], model.vocab, None))
        nll = lambda t: losses.masked_sum(losses.token_nll(logits / t, batch["tokens"])[0], batch["mask"])
        return jax.lax.map(nll, temperatures)

    def evaluate(params, key):
        own, found = params["generator"], {}
        batch = lambda i: sharding.put(split.batch(i), mesh, size)
        parts = list(metrics.paced(scores(own, batch(i), jnp.asarray(TEMPERATURES)) for i in range(split.batches)))
        total, weight = (np.sum([np.asarray(part[half], np.float64) for part in parts], axis=0) for half in (0, 1))
        for number, temperature in enumerate(TEMPERATURES):
            drawn = np.asarray(draw(own, jax.random.fold_in(key, number), temperature))[: config.evaluate.examples]
            found[f"frontier/nll_oracle@{temperature:g}"] = float(-world.log_prob(drawn).mean() / world.length)
            found[f"frontier/nll_test@{temperature:g}"] = metrics.mean(metrics.Sum(total[number], weight[number]))
        return found

    return evaluate
