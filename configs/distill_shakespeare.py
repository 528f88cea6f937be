"""Plays by characters: a student of a tenth of its teacher's size, along the dial from KL[P||Q] to KL[Q||P].

python -m launch --config configs/shakespeare_likelihood.py      # the teacher
python -m launch --config configs/distill_shakespeare.py
"""

from configs import shakespeare_likelihood

TEACHER = "runs/shakespeare_likelihood"
METHODS = (
    {"objective.name": "likelihood", "init_from": ""},
    {"objective.real_prior": 0.0, "distillation.prefixes": "data"},
    {"objective.real_prior": 0.0},
    {"objective.real_prior": 0.5},
    {"objective.real_prior": 1.0},
    {"objective.real_prior": 1.0, "distillation.level": "sequence", "distillation.long_term": "mean"},
)


def get_config():
    config = shakespeare_likelihood.get_config()
    config.steps = 800
    config.teacher.name, config.teacher.width, config.teacher.layers = (
        "transformer",
        128,
        4,
    )  # as the teacher's run has it
    config.init_from = (("teacher", TEACHER, "generator"),)
    config.model.width, config.model.layers = 48, 3
    config.objective.name = "distillation"
    config.distillation.prompt = 32
    config.data.length = 96
    config.evaluate.every_steps = 400
    config.evaluate.evaluators = ("likelihood", "samples", "exposure")
    config.evaluate.exposure.ngram_order = 6
    config.evaluate.examples = 128
    config.evaluate.batches = 100
    config.sweep = METHODS
    return config
