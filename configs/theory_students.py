"""A hidden-Markov teacher and students that can be it, or are too small: the dial, and whose prefixes are read.

python -m launch --config configs/theory_students.py
"""

from configs import theory_distillation

WHOLE = {"distillation.level": "sequence", "distillation.baseline": "leave_one_out"}
SMALL = {"model.name": "factorised_mixture", "model.factorised_mixture.components": 2}


def get_config():
    config = theory_distillation.get_config()
    config.data.name = "world:hmm"
    config.data.world.vocab, config.data.world.length = 3, 6
    config.data.world.concentration = 0.05
    config.data.batch_size = 1024
    config.steps = 600
    config.optimizer.learning_rate = 0.03
    config.evaluate.evaluators = ("exact", "teacher")
    config.evaluate.every_steps = config.steps
    config.evaluate.examples = 4096
    config.report.figures = ()
    config.sweep = (
        {**SMALL, "objective.real_prior": 0.0, "distillation.prefixes": "teacher"},
        *({**SMALL, "objective.real_prior": prior, **WHOLE} for prior in (0.1, 0.5, 0.9, 1.0)),
        *(
            {
                **student,
                "objective.real_prior": 0.5,
                "distillation.prefixes": "mixed",
                "distillation.student_share": share,
            }
            for student in ({}, SMALL)
            for share in (0.0, 0.5, 1.0)
        ),
    )
    return config
