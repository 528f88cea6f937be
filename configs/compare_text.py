"""Which objective writes the better lines of Shakespeare? One LSTM, seven ways, for as many device-seconds.

python -m launch --config configs/compare_text.py:teacher    # a larger network, for distillation
python -m launch --config configs/compare_text.py:start      # the LSTM, by likelihood
python -m launch --config configs/compare_text.py            # from there, each way, three seeds

What came out: configs/RESULTS.md.
"""

from configs import base

SEEDS = 3
GAME = {"objective.name": "adversarial", "adversarial.known_density": True}
METHODS = (
    {"objective.name": "likelihood"},
    {"objective.name": "scheduled_sampling"},
    *({**GAME, "objective.real_prior": pi} for pi in (0.1, 0.5, 0.9)),
    {"objective.name": "cooperative", "objective.real_prior": 0.5},
    {"objective.name": "distillation", "objective.real_prior": 0.5},
)
STEPS = (1000, 1000, 300, 300, 300, 300, 300)


def get_config(variant: str = ""):
    base.require_variant(variant, ("", "teacher", "start"))
    config = base.get_config()
    config.data.name, config.data.shakespeare.unit = "shakespeare", "line"
    config.data.length = 56
    config.data.batch_size = 32
    config.model.width = 128
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 5e-3, 50
    config.evaluate.evaluators = ("likelihood", "samples", "text_quality")
    config.evaluate.every_steps = 10_000  # at the end
    config.evaluate.examples = 2048
    config.evaluate.text_quality.judge_steps = 200
    config.log.every_steps = 50
    if variant == "teacher":
        config.steps = 3000
        config.model.name, config.model.layers = "transformer", 4
        config.model.transformer.heads = config.model.transformer.kv_heads = 4
        config.optimizer.learning_rate = 3e-3
        config.optimizer.final_fraction = 0.02
        return config
    if variant == "start":
        config.steps = 1000
        config.sweep = base.grid({"seed": range(SEEDS)})
        return config
    teacher = ("teacher", "runs/compare_text-teacher", "generator")
    config.optimizer.learning_rate = 1e-3
    config.critic.width = config.mediator.width = config.model.width
    config.teacher.name, config.teacher.width, config.teacher.layers = "transformer", 128, 4
    config.teacher.transformer.heads = config.teacher.transformer.kv_heads = 4
    config.scheduled_sampling.keep_schedule, config.scheduled_sampling.keep_k = "inverse_sigmoid", 110.0
    config.sweep = METHODS
    return config
