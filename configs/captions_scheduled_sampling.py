"""Does scheduled sampling help captions? Two pictures of clothes, described in words, at equal budgets."""

from configs import base, cmudict_scheduled_sampling

STEPS = 600


def get_config(variant: str = ""):
    config = base.get_config()
    config.steps = STEPS
    config.data.name = "captions:fashion"
    config.data.tokenizer = "words"
    config.data.conditional = True
    config.data.batch_size = 64
    config.data.length = 11
    config.model.width = 128
    config.objective.name = "scheduled_sampling"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 50
    config.evaluate.evaluators = ("likelihood", "transcription", "samples")
    config.evaluate.every_steps = 200
    config.log.tensorboard = False
    config.sweep = tuple({**m, "seed": seed} for m in cmudict_scheduled_sampling.methods(STEPS) for seed in range(3))
    return config
