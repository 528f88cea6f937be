"""How (not) to train a generative model, in miniature: one LSTM on American surnames, by five objectives.

    python -m launch --config configs/quickstart.py

Likelihood, scheduled sampling, and the adversarial dial at three places, all from scratch, for as many steps and by two
seeds; one report says which was best at what, and how sure that is. 3 min 8 s on 2 CPU cores.
"""

from configs import surnames_likelihood

METHODS: tuple[dict[str, object], ...] = (
    {"objective.name": "likelihood"},
    {"objective.name": "scheduled_sampling"},
    *({"objective.name": "adversarial", "objective.real_prior": prior} for prior in (0.1, 0.5, 0.9)),
)


def get_config():
    config = surnames_likelihood.get_config()
    config.steps = 1000
    config.model.width = config.critic.width = 64
    config.adversarial.known_density = True
    config.scheduled_sampling.keep_schedule, config.scheduled_sampling.keep_k = "inverse_sigmoid", 110.0
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.5
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_steps = 20
    config.evaluate.evaluators = ("likelihood", "samples", "exposure", "baselines")
    config.evaluate.exposure.ngram_order = 5
    config.evaluate.examples = 2048
    config.evaluate.every_steps = 250
    config.log.every_steps = 125
    config.sweep = tuple({**method, "seed": seed} for method in METHODS for seed in (0, 1))
    return config
