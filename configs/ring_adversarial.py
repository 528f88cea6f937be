"""Eight narrow modes on a circle against a learned critic: which modes are found, along the dial.

python -m launch --config configs/ring_adversarial.py
python -m launch --config configs/ring_adversarial.py:grid       # 25 modes
"""

from configs import base


def get_config(variant: str = "ring"):
    config = base.get_config()
    config.data.name = f"world:{variant}"
    config.data.batch_size = 256
    config.model.name = config.critic.name = "mlp"
    config.model.width = config.critic.width = 128
    config.model.layers = config.critic.layers = 3
    config.model.latent = 2
    config.objective.name = "adversarial"
    config.objective.r1 = config.objective.r2 = 0.02
    config.steps = 6000
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.0
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "linear"
    config.optimizer.final_fraction = 0.0
    config.optimizer.clip_norm = 0.0
    config.training.ema_decay = 0.998
    config.log.every_steps = 500
    config.log.tensorboard = False
    config.evaluate.evaluators = ("modes",)
    config.evaluate.examples = 2500
    config.evaluate.every_steps = 1500
    config.sweep = base.grid({"objective.real_prior": (0.1, 0.5, 0.9), "seed": range(5)})
    return config
