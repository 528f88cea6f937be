"""Text without a condition: surnames by likelihood, by scheduled sampling and by always sampling, at equal budgets."""

from configs import quickstart

METHODS = (
    {"objective.name": "likelihood"},
    {"objective.keep_schedule": "inverse_sigmoid", "objective.keep_k": 330.0, "objective.keep_true": 0.5},
    {"objective.keep_schedule": "constant", "objective.keep_true": 0.5},
    {"objective.keep_schedule": "constant", "objective.keep_true": 0.0},
)


def get_config(variant: str = ""):
    config = quickstart.get_config()
    config.objective.name = "scheduled_sampling"
    config.evaluate.evaluators = ("likelihood", "samples", "exposure")
    config.evaluate.ngram_order = 5
    config.evaluate.examples = 2048
    config.evaluate.every_steps = 1000
    config.sweep = tuple({**method, "seed": seed} for method in METHODS for seed in range(2))
    return config
