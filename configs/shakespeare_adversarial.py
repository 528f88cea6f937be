"""Shakespeare's plays, in pieces of 12 characters, from scratch against a critic: no likelihood anywhere.

    python -m launch --config configs/shakespeare_adversarial.py

2.324 nats/char held out, "d flate he d", "ad of thy wr", "thit And thi"; some 2 min of CPU time. At 32 characters the
critic is certain at once, and the generator stops learning (js) or ends at once (reverse_kl):
configs/shakespeare_cooperative.py has no such limit.
"""

from configs import base


def get_config(variant: str = ""):
    config = base.get_config()
    config.steps = 900
    config.data.name = "shakespeare"
    config.data.length = 12
    config.data.batch_size = 128
    config.model.width = config.critic.width = 128
    config.objective.name = "adversarial"
    config.objective.generator_loss = "js"
    config.objective.known_density = True
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.5
    config.optimizer.learning_rate = 5e-3
    config.log.every_steps = 100
    config.evaluate.evaluators = ("likelihood", "samples")
    config.evaluate.batches = 20
    config.evaluate.every_steps = 300
    config.sample.count = 8
    return config
