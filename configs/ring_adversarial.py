"""Narrow modes in the plane against a learned critic: all of them are found, wherever the dial stands.

    python -m launch --config configs/ring_adversarial.py            # 8 modes on a circle
    python -m launch --config configs/ring_adversarial.py:grid       # 25 modes on a square

Modes found, share of samples within 3 standard deviations of one, and KL of the histogram of modes from theirs, mean
and standard deviation over five seeds; 53 s of CPU time a run, 15 runs in 17 to 21 min on one of 2 CPU cores that were
not idle:

              ring: found   quality       KL      grid: found   quality       KL
    pi = 0.1       8 of 8   .962 (.004)   .001     25 of 25     .939 (.010)   .005
    pi = 0.5       8 of 8   .968 (.004)   .001     25 of 25     .895 (.040)   .007
    pi = 0.9       8 of 8   .963 (.003)   .002     25 of 25     .941 (.008)   .004

The generator can be the data's law here, so the dial has little to choose between. Every run found every mode.
"""

from configs import base

VARIANTS = ("ring", "grid")


def get_config(variant: str = "ring"):
    base.require_variant(variant, VARIANTS)
    config = base.get_config()
    config.data.name = f"world:{variant}"
    config.data.batch_size = 256
    config.model.name = config.critic.name = "mlp"
    config.model.width = config.critic.width = 128
    config.model.layers = config.critic.layers = 3
    config.model.mlp.latent = 2
    config.objective.name = "adversarial"
    config.adversarial.r1 = config.adversarial.r2 = 0.02
    config.steps = 6000
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.0
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "linear"
    config.optimizer.final_fraction = 0.0
    config.optimizer.clip_norm = 0.0
    config.training.ema_decay = 0.998
    config.log.every_steps = 500
    config.log.loggers = ()
    config.evaluate.evaluators = ("modes",)
    config.evaluate.examples = 2500
    config.evaluate.every_steps = 1500
    config.sweep = base.grid({"objective.real_prior": (0.1, 0.5, 0.9), "seed": range(5)})
    return config
