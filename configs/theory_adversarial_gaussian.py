"""An isotropic Gaussian fitted to a correlated one against a learned critic: the variance that JS_pi says.

python -m launch --config configs/theory_adversarial_gaussian.py

The variances come out at 0.773, 0.607, 0.434, 0.310 and 0.242 for pi = 0.1, 0.25, 0.5, 0.75 and 0.9, where the exact
minimisers have 0.781, 0.612, 0.436, 0.310 and 0.243. 208 s of CPU time on 2 CPU cores that were not idle.
"""

from configs import base, theory_adversarial

PRIORS = (0.1, 0.25, 0.5, 0.75, 0.9)


def get_config(variant: str = ""):
    config = theory_adversarial.get_config("mlp")
    config.data.name = "world:gaussian"
    config.data.batch_size = 512
    config.model.name = "gaussian"
    config.model.mean, config.model.scale = 0.3, 0.7
    config.critic.width = 64
    config.steps = 4000
    config.optimizer.learning_rate = 0.005
    config.optimizer.critic_scale = 1.0
    config.figures = ("gaussian_dial",)
    config.sweep = base.grid({"objective.real_prior": PRIORS})
    return config
