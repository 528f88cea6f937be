"""Does scheduled sampling help conditional generation? Spelling to phonemes on CMUdict, at equal budgets."""

from configs import base

STEPS = 1500
FLOOR = 0.25  # where the schedules end


def methods(steps: int):
    """Likelihood, the three schedules of Bengio et al. (2015) down to the same floor, and always sampling."""
    falling = {"objective.keep_true": FLOOR}
    return (
        {"objective.name": "likelihood"},
        {"objective.keep_schedule": "linear", "objective.keep_slope": (1 - FLOOR) / steps, **falling},
        {"objective.keep_schedule": "exponential", "objective.keep_k": FLOOR ** (1 / steps), **falling},
        {"objective.keep_schedule": "inverse_sigmoid", "objective.keep_k": 0.11 * steps, **falling},
        {"objective.keep_schedule": "constant", "objective.keep_true": 0.0},
    )


def get_config(variant: str = ""):
    config = base.get_config()
    config.steps = STEPS
    config.data.name = "cmudict"
    config.data.tokenizer = "words"
    config.data.conditional = True
    config.data.batch_size = 128
    config.data.length = 29
    config.model.width = 192
    config.objective.name = "scheduled_sampling"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 100
    config.evaluate.evaluators = ("likelihood", "transcription", "samples")
    config.evaluate.every_steps = 500
    config.log.tensorboard = False
    config.sweep = tuple({**method, "seed": seed} for method in methods(STEPS) for seed in range(3))
    return config
