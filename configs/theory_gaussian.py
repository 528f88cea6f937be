"""One isotropic Gaussian fitted to a correlated one along the dial: what it becomes is known in closed form.

    python -m launch --config configs/theory_gaussian.py

1 min on 2 CPU cores. The standard deviations come out at 1.000, 0.884, 0.660, 0.445 and 0.436; the closed forms of both
ends are 1 and the root of 0.19 = 0.436. At pi = 0 (likelihood) the model covers the data, at pi = 1 it hides inside it:
Huszár (2015), figure 1.
"""

from configs import base

PRIORS = (0.0, 0.1, 0.5, 0.99, 1.0)


def get_config():
    config = base.get_config()
    config.data.name = "world:gaussian"
    config.data.batch_size = 64
    config.model.name = "gaussian"
    config.objective.name = "divergence"
    config.steps = 300
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.05
    config.optimizer.final_fraction = 0.0
    config.optimizer.clip_norm = 0.0
    config.log.every_steps = 50
    config.log.loggers = ()
    config.evaluate.evaluators = ("exact",)
    config.evaluate.every_steps = 300
    config.sweep = base.grid({"objective.real_prior": PRIORS})
    config.report.figures = ("gaussian_fit",)
    return config
