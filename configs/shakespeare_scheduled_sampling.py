"""Plays by characters with a Transformer: likelihood beside scheduled sampling in exact mode, at equal steps.

    python -m launch --config configs/shakespeare_scheduled_sampling.py

After 1,600 steps (8 and 11 min on 2 CPU cores that had other work), on the held-out plays:

                                                nats/char   KL to an n-gram, nats: on data   on its own   gap
    likelihood                                      1.616                            0.351        0.401  0.050
    scheduled sampling, inv. sigmoid to 1/2         2.177                            0.900        1.005  0.105

A batch of 8 rows of 128 took 25 passes over 16 positions of each at keep_true = 1/2, none left unresolved.
"""

from configs import shakespeare_likelihood

STEPS = 1600
METHODS = (
    {"objective.name": "likelihood"},
    {
        "scheduled_sampling.keep_schedule": "inverse_sigmoid",
        "scheduled_sampling.keep_k": 180.0,
        "scheduled_sampling.keep_true": 0.5,
    },
)


def get_config():
    config = shakespeare_likelihood.get_config()
    config.steps = config.evaluate.every_steps = STEPS
    config.objective.name = "scheduled_sampling"
    config.scheduled_sampling.mode = "exact"
    config.scheduled_sampling.draw = "gumbel"
    config.scheduled_sampling.window = 16
    config.evaluate.evaluators = ("likelihood", "samples", "exposure")
    config.evaluate.exposure.ngram_order = 6
    config.evaluate.examples = 128
    config.sweep = METHODS
    return config
