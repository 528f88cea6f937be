"""SeqGAN's oracle benchmark: likelihood, scheduled sampling, the dial and cooperation, over temperatures.

    python -m launch --config configs/oracle_benchmark.py             # scaled: 100 symbols, 10 tokens
    python -m launch --config configs/oracle_benchmark.py:full        # 5,000 symbols, 20 tokens

It has not been run to the end yet: it has no numbers.
"""

from configs import base

METHODS = (
    {"objective.name": "likelihood"},
    {"objective.name": "scheduled_sampling"},
    {"objective.name": "adversarial", "objective.generator_loss": "js"},
    {"objective.name": "adversarial", "objective.generator_loss": "reverse_kl"},
    {"objective.name": "adversarial", "objective.generator_loss": "forward_kl"},
    {"objective.name": "cooperative"},
)


def get_config(variant: str = ""):
    config = base.get_config()
    config.data.name = "world:oracle"
    config.world.vocab, config.world.length = (5000, 20) if variant == "full" else (100, 10)
    config.world.examples = 10_000
    config.world.held_out = 2_000
    config.data.batch_size = 64
    config.model.width = 32
    config.critic.width = 64
    config.steps = 3000
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.clip_norm = 5.0
    config.log.every_steps = 100
    config.log.tensorboard = False
    config.evaluate.evaluators = ("likelihood", "exact", "frontier")
    config.evaluate.examples = 2_000
    config.evaluate.every_steps = 1000
    config.sweep = METHODS
    config.figures = ("frontiers",)
    return config
