"""Does scheduled sampling help conditional generation? Spelling to phonemes on CMUdict, at equal budgets.

    python -m launch --config configs/cmudict_scheduled_sampling.py

An LSTM reads the letters, another writes the phonemes; greedy answers on 6,153 held-out words, means over three seeds
and standard deviations (65 min for the 15 runs on 2 CPU cores that had other work):

                                     % of phonemes wrong   % of words wrong        BLEU   nats/phoneme
    likelihood                              15.0 +- 0.3        49.4 +- 0.3   68.6 +- 0.4          0.321
    scheduled sampling, linear              15.0 +- 0.4        52.5 +- 0.3   66.8 +- 0.5          0.398
    scheduled sampling, exponential         14.9 +- 0.2        52.4 +- 0.0   67.0 +- 0.1          0.399
    scheduled sampling, inv. sigmoid        15.7 +- 0.3        53.4 +- 0.2   65.7 +- 0.3          0.422
    always sampling                         15.6 +- 0.1        54.7 +- 0.3   65.2 +- 0.1          0.467

It does not help here: as many phonemes are right, and fewer words.
"""

from configs import base

STEPS = 1500
FLOOR = 0.25  # where the schedules end


def methods(steps: int, k: float):
    """Likelihood, the three schedules of Bengio et al. (2015) down to the same floor, and always sampling."""
    falling = {"scheduled_sampling.keep_true": FLOOR}
    return (
        {"objective.name": "likelihood"},
        {"scheduled_sampling.keep_schedule": "linear", "scheduled_sampling.keep_slope": (1 - FLOOR) / steps, **falling},
        {
            "scheduled_sampling.keep_schedule": "exponential",
            "scheduled_sampling.keep_k": FLOOR ** (1 / steps),
            **falling,
        },
        {"scheduled_sampling.keep_schedule": "inverse_sigmoid", "scheduled_sampling.keep_k": k, **falling},
        {"scheduled_sampling.keep_schedule": "constant", "scheduled_sampling.keep_true": 0.0},
    )


def get_config():
    config = base.get_config()
    config.steps = STEPS
    config.data.name = "cmudict"
    config.data.tokenizer = "words"
    config.data.conditional = True
    config.data.batch_size = 128
    config.data.length = 29
    config.model.width = 192
    config.objective.name = "scheduled_sampling"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 100
    config.evaluate.evaluators = ("likelihood", "transcription", "samples")
    config.evaluate.every_steps = 500
    config.log.loggers = ()
    config.sweep = tuple({**method, "seed": seed} for method in methods(STEPS, 170.0) for seed in range(3))
    return config
