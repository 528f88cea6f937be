"""Which objective writes the better lines of Shakespeare? One LSTM, seven ways, for as many CPU seconds.

python -m launch --config configs/compare_text.py:teacher    # a larger network, for distillation
python -m launch --config configs/compare_text.py:start      # the LSTM, by likelihood
python -m launch --config configs/compare_text.py            # from there, each way, three seeds

What came out: configs/RESULTS.md, whose device-seconds are wall time of a core that had other work; by the benchmark of
steps the ways are equal, 25 CPU seconds each.
"""

from collections.abc import Sequence

from configs import base

SEEDS = 3
GAME: dict[str, object] = {"objective.name": "adversarial", "adversarial.known_density": True}
METHODS: tuple[dict[str, object], ...] = (
    {"objective.name": "likelihood"},
    {"objective.name": "scheduled_sampling"},
    *({**GAME, "objective.real_prior": pi} for pi in (0.1, 0.5, 0.9)),
    {"objective.name": "cooperative", "objective.real_prior": 0.5},
    {"objective.name": "distillation", "objective.real_prior": 0.5},
)
START = 1000  # steps
STEPS = (1950, 1650, 300, 300, 300, 330, 630)  # 25 CPU seconds of each method, by `python -m launch.benchmark`


def get_config(variant: str = ""):
    base.require_variant(variant, ("", "teacher", "start"))
    config = base.get_config()
    config.data.name, config.data.shakespeare.unit = "shakespeare", "line"
    config.data.length = 56
    config.data.batch_size = 32
    config.model.width = 128
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 5e-3, 50
    config.evaluate.evaluators = ("likelihood", "samples", "text_quality", "frontier")
    config.evaluate.every_steps = 10_000  # at the end
    config.evaluate.examples = 1024
    config.evaluate.text_quality.judge_steps = 100
    config.log.every_steps = 50
    if variant == "teacher":
        make_transformer(config.model, 128, 4)
        config.steps = 3000
        config.optimizer.learning_rate, config.optimizer.final_fraction = 3e-3, 0.02
    elif variant == "start":
        config.steps = START
        config.sweep = base.grid({"seed": range(SEEDS)})
    else:
        make_transformer(config.teacher, 128, 4)
        config.data.skip_batches = ((0, START),)  # which the start has read
        make_comparison(config, "runs/compare_text-start", "runs/compare_text-teacher", STEPS)
    return config


def make_transformer(network, width: int, layers: int) -> None:
    """Makes a network's section a Transformer of four heads."""
    network.name, network.width, network.layers = "transformer", width, layers
    network.transformer.heads = network.transformer.kv_heads = 4


def make_comparison(config, start: str, teacher: str, steps: Sequence[int]) -> None:
    """METHODS, each for so many steps and by SEEDS seeds. start: the runs that they go on from; teacher: a run.

    A critic starts as a copy of its generator, and so does a mediator here: a new one would drag the generator along.
    """
    config.critic.width = config.mediator.width = config.model.width
    config.optimizer.learning_rate = 1e-3
    config.scheduled_sampling.keep_schedule, config.scheduled_sampling.keep_k = "inverse_sigmoid", 110.0
    variants = []
    for method, count in zip(METHODS, steps, strict=True):
        for seed in range(SEEDS):
            run = f"{start}/seed={seed}"
            given = [("generator", run, "generator")]
            if method["objective.name"] == "cooperative":
                given.append(("mediator", run, "generator"))
            if method["objective.name"] == "distillation":
                given.append(("teacher", teacher, "generator"))
            variants.append({"steps": count, **method, "seed": seed, "init_from": tuple(given)})
    config.sweep = tuple(variants)
