"""Does scheduled sampling help captions? Two pictures side by side, described in words, at equal budgets.

    python -m launch --config configs/captions_scheduled_sampling.py             # digits: a 3 to the left of an 8
    python -m launch --config configs/captions_scheduled_sampling.py:fashion     # a sneaker to the left of a bag

Convolutions and an LSTM read the picture, another writes the caption: the shape of the MSCOCO entry. With clothes,
greedy answers on 5,000 held-out pictures, means over three seeds and standard deviations (25 min for the 15 runs on 2
CPU cores that had other work):

                                     % of captions wrong        BLEU   nats/word
    likelihood                              41.0 +- 0.4   89.6 +- 0.0       0.136
    scheduled sampling, linear              42.8 +- 3.2   89.2 +- 1.0       0.151
    scheduled sampling, exponential         42.5 +- 2.6   89.2 +- 0.9       0.156
    scheduled sampling, inv. sigmoid        41.8 +- 1.4   89.4 +- 0.3       0.153
    always sampling                         47.8 +- 2.2   87.7 +- 0.8       0.200

Scheduled sampling is not to be told from likelihood here; always sampling is worse.
"""

from configs import base, cmudict_scheduled_sampling

STEPS = 600

VARIANTS = ("mnist5k", "fashion", "digits")


def get_config(variant: str = "mnist5k"):
    base.require_variant(variant, VARIANTS)
    config = cmudict_scheduled_sampling.get_config()
    config.steps = STEPS
    config.data.name = f"captions:{variant}"
    config.data.batch_size = 64
    config.data.length = 11
    config.model.width = 128
    config.optimizer.warmup_steps = 50
    config.evaluate.every_steps = 200
    config.sweep = tuple(
        {**m, "seed": seed} for m in cmudict_scheduled_sampling.methods(STEPS, 66.0) for seed in range(3)
    )
    return config
