"""SeqGAN's oracle benchmark: likelihood, scheduled sampling, the dial and cooperation, over temperatures.

    python -m launch --config configs/oracle_benchmark.py             # scaled: 100 symbols, 10 tokens
    python -m launch --config configs/oracle_benchmark.py:full        # 5,000 symbols, 20 tokens

Scaled, nats a token, seed 0, every method from scratch on the same 10,000 sequences. NLL_oracle, NLL_test and entropy
are at temperature 1 (standard error .01); constrained is the least NLL_oracle over temperatures where NLL_test is at
most likelihood's + 0.4. The oracle's own entropy is 2.746. 9 min on 2 CPU cores that had other work; the seconds are
of training, on one of them.

                                   NLL_oracle  NLL_test  entropy  constrained  steps  CPU s
    likelihood                          3.807     3.290    3.130        2.616   3000     33
    cooperative                         3.946     3.295    3.235        2.612   1400     52
    reverse_kl + 1 likelihood           4.229     3.353    3.414        2.836   1200     20
    adversarial js                      4.558     3.546    3.524        3.586   1200     20
    adversarial reverse_kl              4.572     3.549    3.532        3.611   1200     20
    adversarial forward_kl              4.763     3.612    3.610        3.993   1200     20
    scheduled sampling, keep 1/2        5.146     3.545    3.913        3.395   1500     20

Nothing beats likelihood at its best, which is a matter of width and dropout: width 32 without has 3.378 and 2.99
(in 3,000 steps), width 64 with 0.2 has 3.325 and 2.72. The mediator of the cooperative run is such a likelihood model
too, and what it teaches is as good, not better. pi is 0.9, for js and for cooperation; the runs against a
critic had two thirds of likelihood's time, cooperation one and a half times it.

Full, with the canonical oracle's weights (data.world.path, its own entropy 5.756), 54 min of CPU time on one of 2
busy cores with the evaluations, steps by the costs below, some 300 s of training each:

                                   NLL_oracle  NLL_test  entropy  constrained  steps
    likelihood                          8.888     7.981    6.468        8.548   2800
    cooperative                         9.641     7.610    7.404        7.532    650
    scheduled sampling, keep 1/2        9.865     7.667    7.554        8.331   2500
    reverse_kl + 1 likelihood          10.076     7.727    7.689        8.865    480
    adversarial reverse_kl             10.199     7.838    7.748        9.472    480
    adversarial js                     11.367     8.497    8.440            -    480
    adversarial forward_kl             11.407     8.548    8.457            -    480
    likelihood, stopped at 1000         9.355     7.685    7.102        8.11    1000
    likelihood, stopped at 600          9.687     7.670    7.380        8.15     600

Cooperation is ahead of likelihood, in equal time and stopped early. After 2800 steps likelihood overfits its 10,000
sequences (6.00 nats a token on them, and its held-out NLL is least at temperature 1.5); the last two rows, a cosine to
their own last step, have a stricter bound of their own, 8.08 and 8.07, to which the frontier is interpolated, and where
cooperation has 7.85 and 7.88.
"""

from configs import base

BOTH = {"adversarial.likelihood_weight": 1.0, "adversarial.likelihood_final": 1.0}


def methods(likelihood: int, cooperative: int, game: int, sampling: int):
    """Every method and its steps, which are by what one costs: 11 ms of likelihood, 37 of cooperation, 17 against a
    critic and 13 of scheduled sampling; 108, 465, 620 and 120 in the full benchmark."""
    against = {"objective.name": "adversarial", "optimizer.b1": 0.5, "steps": game}
    return (
        {"objective.name": "likelihood", "model.width": 128, "model.dropout": 0.2, "steps": likelihood},
        {"objective.name": "cooperative", "model.width": 128, "mediator.width": 128, "steps": cooperative},
        against | {"adversarial.generator_loss": "reverse_kl"} | BOTH,
        against | {"adversarial.generator_loss": "js"},
        against | {"adversarial.generator_loss": "reverse_kl"},
        against | {"adversarial.generator_loss": "forward_kl"},
        {"objective.name": "scheduled_sampling", "model.width": 128, "model.dropout": 0.2, "steps": sampling},
    )


VARIANTS = ("", "full")


def get_config(variant: str = ""):
    base.require_variant(variant, VARIANTS)
    config = base.get_config()
    config.data.name = "world:oracle"
    config.data.world.vocab, config.data.world.length = (5000, 20) if variant == "full" else (100, 10)
    config.data.world.examples = 10_000
    config.data.world.held_out = 4_000
    config.data.batch_size = 64
    config.model.width = config.critic.width = config.mediator.width = 64
    config.critic.dropout = config.mediator.dropout = 0.2
    config.objective.real_prior = 0.9
    config.adversarial.known_density = True
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.clip_norm = 5.0
    config.log.every_steps = 100
    config.log.loggers = ()
    config.evaluate.evaluators = ("likelihood", "exact", "frontier")
    config.evaluate.examples = 4_000
    config.evaluate.every_steps = 10_000
    config.sweep = methods(2800, 650, 480, 2500) if variant == "full" else methods(3000, 1400, 1200, 1500)
    config.report.figures = ("frontiers",)
    return config
