"""An isotropic Gaussian fitted to a correlated one against a learned critic: the variance that JS_pi says.

python -m launch --config configs/theory_adversarial_gaussian.py

The variances come out at 0.773, 0.607, 0.434, 0.310 and 0.242 for pi = 0.1, 0.25, 0.5, 0.75 and 0.9, where the exact
minimisers have 0.781, 0.612, 0.436, 0.310 and 0.243. 208 s of CPU time on 2 CPU cores that were not idle.
"""

from configs import theory_adversarial


def get_config():
    config = theory_adversarial.game_config()
    config.steps = 4000
    config.data.name = "world:gaussian"
    config.model.name = "gaussian"
    config.model.gaussian.mean, config.model.gaussian.scale = 0.3, 0.7
    config.critic.name = "mlp"
    config.critic.width, config.critic.layers = 64, 2
    config.optimizer.learning_rate = 0.005
    config.report.figures = ("gaussian_dial",)
    return config
