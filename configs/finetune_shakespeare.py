"""SmolLM2 (135 M parameters, 93 MB from the package index) on Shakespeare's plays, by adapters that a laptop can train:

python -m launch --config configs/finetune_shakespeare.py                       # by likelihood
python -m launch --config configs/finetune_shakespeare.py:scheduled_sampling
"""

from ml_collections import ConfigDict

from configs import base

OBJECTIVES = ("likelihood", "scheduled_sampling")


def get_config(objective: str = "likelihood") -> ConfigDict:
    """objective: one of OBJECTIVES."""
    config = base.get_config()
    config.objective.name = objective
    config.init_from = "smollm2-135m"
    config.data.name = "shakespeare"
    config.data.batch_size, config.data.length = 4, 64
    config.steps = 300
    config.model.transformer.lora_rank = 8
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 20
    config.log.every_steps = 10
    config.checkpoint.every_steps = 100
    config.evaluate.every_steps, config.evaluate.batches = 150, 32
    config.evaluate.evaluators = ("likelihood", "samples")
    config.sample.count, config.sample.length = 2, 64
    if objective == "scheduled_sampling":
        config.scheduled_sampling.keep_true = 0.9
        config.scheduled_sampling.keep_schedule = "constant"
    return config
