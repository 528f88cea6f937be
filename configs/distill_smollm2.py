"""SmolLM2 (135 M parameters) teaches a Transformer of a tenth of its size to go on with Shakespeare's plays.

python -m launch --config configs/distill_smollm2.py:start    # the students, by likelihood
python -m launch --config configs/distill_smollm2.py          # from there, each way for as many CPU seconds
"""

from configs import base

TEACHER = ("teacher", "smollm2-135m", "generator")
START = 900  # steps
READING = {"distillation.prefixes": "data", "data.skip_batches": ((0, START),)}  # on where the start stopped
METHODS = (  # each for 150 CPU seconds of one core: `python -m launch.benchmark` has the milliseconds of a step of each
    {"steps": 350, "distillation.likelihood": 1.0, "distillation.prompt": 0, **READING},
    {"steps": 46, "objective.real_prior": 0.0, "distillation.prefixes": "teacher"},
    {"steps": 105, "objective.real_prior": 0.0, **READING},
    {"steps": 79, "objective.real_prior": 0.5},
    {"steps": 92, "objective.real_prior": 1.0},
    {
        "steps": 91,
        "objective.real_prior": 1.0,
        "distillation.level": "sequence",
        "distillation.long_term": "mean",
    },
)
SEEDS = 3


def get_config(variant: str = ""):
    base.require_variant(variant, ("", "start"))
    config = base.get_config()
    config.steps = START
    config.data.name = "shakespeare"
    config.data.length = 48
    config.data.batch_size = 8
    config.model.name = "transformer"
    config.model.width, config.model.layers = 192, 8
    config.model.transformer.heads, config.model.transformer.kv_heads = 6, 6
    config.model.transformer.tie_embeddings = True
    config.objective.name = "distillation"
    config.distillation.prompt = 16
    config.init_from = (TEACHER,)
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 100
    config.optimizer.weight_decay = 0.1
    config.evaluate.evaluators = ("likelihood", "teacher", "text_quality", "samples")
    config.evaluate.every_steps = 10_000  # at the end
    config.evaluate.examples = 64
    config.evaluate.batches = 40
    config.evaluate.teacher.prompt = config.distillation.prompt
    config.evaluate.text_quality.judge_steps = 0
    config.log.every_steps = 20
    if variant == "start":
        config.distillation.likelihood, config.distillation.prefixes, config.distillation.prompt = 1.0, "data", 0
        config.sweep = base.grid({"seed": range(SEEDS)})
        return config
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 5e-4, 10
    config.sweep = tuple(
        {
            **method,
            "seed": seed,
            "init_from": (TEACHER, ("generator", f"runs/distill_smollm2-start/seed={seed}", "generator")),
        }
        for method in METHODS
        for seed in range(SEEDS)
    )
    return config
