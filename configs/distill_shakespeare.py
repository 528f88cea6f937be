"""Plays by characters: a student of a quarter of its teacher's size, along the dial from KL[P||Q] to KL[Q||P].

python -m launch --config configs/shakespeare_likelihood.py       # the teacher
python -m launch --config configs/distill_shakespeare.py:start    # the students, by likelihood
python -m launch --config configs/distill_shakespeare.py          # from there, each way for as many CPU seconds
"""

from configs import base, shakespeare_likelihood

TEACHER = ("teacher", "runs/shakespeare_likelihood", "generator")
LIKELIHOOD = {"distillation.likelihood": 1.0, "distillation.prefixes": "data"}
METHODS = (  # each for 50 CPU seconds of one core: `python -m launch.benchmark` has the milliseconds of a step of each
    {"steps": 1250, **LIKELIHOOD},
    {"steps": 980, "objective.real_prior": 0.0, "distillation.prefixes": "data"},
    {"steps": 615, "objective.real_prior": 0.0},
    {"steps": 615, "objective.real_prior": 0.5},
    {"steps": 615, "objective.real_prior": 1.0},
    {
        "steps": 585,
        "objective.real_prior": 1.0,
        "distillation.level": "sequence",
        "distillation.long_term": "mean",
    },
)
SEEDS = 3


def get_config(variant: str = ""):
    base.require_variant(variant, ("", "start"))
    config = shakespeare_likelihood.get_config()
    config.data.length = 64
    config.data.batch_size = 16
    config.teacher.name = "transformer"
    config.teacher.width, config.teacher.layers = config.model.width, config.model.layers
    config.model.width, config.model.layers = 64, 4
    config.objective.name = "distillation"
    config.evaluate.evaluators = ("likelihood", "teacher", "text_quality", "samples")
    config.evaluate.every_steps = 2000  # at the end
    config.evaluate.examples = 1024
    config.evaluate.batches = 100
    config.evaluate.text_quality.judge_steps = 0
    if variant == "start":
        config.init_from = (TEACHER,)
        config.distillation.likelihood, config.distillation.prefixes = 1.0, "data"
        config.steps = METHODS[0]["steps"]
        config.sweep = base.grid({"seed": range(SEEDS)})
        return config
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 50
    config.sweep = tuple(
        {
            **method,
            "seed": seed,
            "init_from": (TEACHER, ("generator", f"runs/distill_shakespeare-start/seed={seed}", "generator")),
        }
        for method in METHODS
        for seed in range(SEEDS)
    )
    return config
