"""Independent bits fitted to correlated ones along the dial: a phase transition.

    python -m launch --config configs/theory_factorised.py

P = [[a, b], [b, a]]. The product of marginals stays a minimum until pi reaches a critical value (0.7538 at a = 0.48),
beyond which the fit takes sides; at a = 0.48 taking sides has become the better minimum before. 33 s on 2 CPU cores,
and every run ends within 0.001 of the global minimum's probabilities.
"""

from configs import base, theory_gaussian

SAME = (0.46, 0.48)  # a: how often both bits are the same, for each value
PRIORS = (0.5, 0.7, 0.8, 0.85, 0.9, 1.0)


def get_config():
    config = theory_gaussian.get_config()
    config.data.name = "world:table"
    config.model.name = "factorised"
    config.steps = 600
    config.evaluate.every_steps = 600
    tables = [((a, round(0.5 - a, 4)), (round(0.5 - a, 4), a)) for a in SAME]
    config.sweep = base.grid({"data.world.probabilities": tables, "objective.real_prior": PRIORS})
    config.report.figures = ("phase_transition",)
    return config
