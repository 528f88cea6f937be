"""The dial learned from samples: independent bits against a learned critic land on the exact minimiser of JS_pi.

    python -m launch --config configs/theory_adversarial.py          # a table as the critic
    python -m launch --config configs/theory_adversarial.py:mlp      # a network

P is a Markov chain of 6 bits, known by its samples alone. For pi = 0.1, 0.25, 0.5, 0.75 and 0.9 every probability ends
within 0.004 of the minimiser's, the excess of JS_pi / (pi (1 - pi)) is below 1e-4 and the critic's bound within 0.001
of JS_pi, with either critic; 139 s and 277 s of CPU time on 2 CPU cores that were not idle.
"""

from configs import base

PRIORS = (0.1, 0.25, 0.5, 0.75, 0.9)

VARIANTS = ("", "mlp")


def game_config():
    """A game with Adam and a rate that falls to 0, swept along the dial."""
    config = base.get_config()
    config.data.batch_size = 512
    config.objective.name = "adversarial"
    config.adversarial.critic_steps = 4
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.5
    config.optimizer.schedule = "linear"
    config.optimizer.final_fraction = 0.0
    config.optimizer.clip_norm = 0.0
    config.training.ema_decay = 0.995
    config.log.every_steps = 250
    config.log.loggers = ()
    config.evaluate.evaluators = ("exact",)
    config.evaluate.every_steps = 1500
    config.sweep = base.grid({"objective.real_prior": PRIORS})
    return config


def get_config(variant: str = ""):
    base.require_variant(variant, VARIANTS)
    config = game_config()
    config.steps = 3000
    config.data.name = "world:markov"
    config.data.world.vocab, config.data.world.length, config.data.world.concentration = 2, 6, 1.0
    config.model.name = "factorised"
    config.critic.name = variant or "tabular"
    config.optimizer.learning_rate = 0.01
    config.adversarial.critic_rate = 5.0
    if variant == "mlp":
        config.critic.layers = 2
        config.adversarial.critic_rate = 0.3
        config.adversarial.reward = "sequence"
    return config
