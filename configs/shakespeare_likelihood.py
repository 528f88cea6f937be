"""Shakespeare's plays, character by character, with a small Transformer, by maximum likelihood.

    python -m launch --config configs/shakespeare_likelihood.py

9 min 26 s on 2 CPU cores: 1.486 nats/char on the held-out plays (The Tempest and Julius Caesar, 201,536 characters),
where the best n-gram of the same training plays (order 6) has 1.598. The text is fetched once, by pip.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.steps = 6400
    config.data.name = "shakespeare"
    config.data.length = 128
    config.data.batch_size = 8
    config.model.name = "transformer"
    config.model.width = 128
    config.model.layers = 4
    config.model.transformer.heads = 4
    config.model.transformer.kv_heads = 4
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 0.1
    config.optimizer.final_fraction = 0.02
    config.log.every_steps = 100
    config.evaluate.evaluators = ("likelihood", "samples", "baselines")
    config.evaluate.every_steps = 1600
    config.sample.count = 4
    return config
