"""One Gaussian fitted to two modes along the dial, from a wide and from a narrow start: the first-order jump.

    python -m launch --config configs/theory_bimodal.py

50 s on 2 CPU cores; every run lands on a local minimum of theory. Up to pi = 0.602 covering both modes is the better of
two, beyond it sitting on one of them is.
"""

from configs import base, theory_gaussian

STARTS = ((-0.2, 2.3), (-2.0, 0.7))  # mean and standard deviation: over both modes, on the heavier one
PRIORS = (0.0, 0.1, 0.3, 0.5, 0.58, 0.62, 0.7, 0.9, 1.0)


def get_config():
    config = theory_gaussian.get_config()
    config.data.name = "world:bimodal"
    config.steps = config.evaluate.every_steps = 600
    config.sweep = base.grid({"objective.real_prior": PRIORS})
    config.sweep = tuple(
        {**point, "model.gaussian.mean": mean, "model.gaussian.scale": scale}
        for mean, scale in STARTS
        for point in config.sweep
    )
    config.report.figures = ("first_order_jump",)
    return config
