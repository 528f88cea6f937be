"""Plays by characters with a Transformer: likelihood beside scheduled sampling in exact mode, at equal steps."""

from configs import shakespeare_likelihood

STEPS = 1600
METHODS = (
    {"objective.name": "likelihood"},
    {"objective.keep_schedule": "inverse_sigmoid", "objective.keep_k": 180.0, "objective.keep_true": 0.5},
    {"objective.keep_schedule": "constant", "objective.keep_true": 0.0},
)


def get_config(variant: str = ""):
    config = shakespeare_likelihood.get_config()
    config.steps = config.evaluate.every_steps = STEPS
    config.objective.name = "scheduled_sampling"
    config.objective.mode = "exact"
    config.objective.draw = "gumbel"
    config.objective.window = 16
    config.evaluate.evaluators = ("likelihood", "samples", "exposure")
    config.evaluate.ngram_order = 6
    config.evaluate.examples = 128
    config.sweep = METHODS
    return config
