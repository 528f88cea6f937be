"""Shakespeare's plays by a generator that never sees them: it follows a mediator, from scratch.

    python -m launch --config configs/shakespeare_cooperative.py

146 s of CPU time on one of 2 cores: 1.886 nats/char held out, and lines to be read:

    SILES:
    Sir as and that call upon Treath
"""

from configs import base


def get_config():
    config = base.get_config()
    config.steps = 1200
    config.data.name = "shakespeare"
    config.data.length = 64
    config.data.batch_size = 32
    config.model.width = 128
    config.mediator.width = 128
    config.objective.name = "cooperative"
    config.objective.real_prior = 0.9
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 20
    config.log.every_steps = 100
    config.evaluate.evaluators = ("likelihood", "samples")
    config.evaluate.batches = 40
    config.evaluate.every_steps = 600
    config.sample.count = 8
    return config
