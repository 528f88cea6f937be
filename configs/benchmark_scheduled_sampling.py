"""What feeding a model its own tokens costs a step.

    python -m launch.benchmark --config configs/benchmark_scheduled_sampling.py
    python -m launch.benchmark --config configs/benchmark_scheduled_sampling.py:transformer \\
        --config.init_from=runs/shakespeare_likelihood
"""

from typing import Any

from configs import base, shakespeare_likelihood

VARIANTS = ("lstm", "transformer")


def get_config(variant: str = "lstm"):
    base.require_variant(variant, VARIANTS)
    if variant == "transformer":
        config = shakespeare_likelihood.get_config()
        config.data.batch_size = 16
        keep_true = [0.75, 0.25]
        exact: dict[str, Any] = {"scheduled_sampling.mode": "exact", "scheduled_sampling.draw": "gumbel"}
        windows = tuple({**exact, "scheduled_sampling.window": window} for window in (0, 32, 16))
        methods: tuple[dict[str, Any], ...] = ({}, *windows, {**exact, "scheduled_sampling.draw": "inverse_cdf"})
    else:
        config = base.get_config()
        config.data.name = "world:markov"
        config.data.world.vocab, config.data.world.length, config.data.world.examples = 1000, 64, 4096
        config.model.width = 256
        keep_true = [0.5]
        methods = ({}, {"scheduled_sampling.draw": "gumbel"}, {"scheduled_sampling.feed": "argmax"})
    config.objective.name = "scheduled_sampling"
    config.sweep = (
        {"objective.name": "likelihood"},
        *({"scheduled_sampling.keep_true": keep, **method} for keep in keep_true for method in methods),
    )
    return config
