"""A character LSTM on American surnames, by maximum likelihood.

    python -m launch --config configs/surnames_likelihood.py

45 s on 2 CPU cores: 2.101 nats/char on held-out names, where the best n-gram has 2.175.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.steps = 3000
    config.data.name = "surnames"
    config.data.batch_size = 128
    config.data.length = 16
    config.model.width = 128
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 100
    config.evaluate.evaluators = ("likelihood", "samples", "baselines")
    config.evaluate.every_steps = 500
    return config
