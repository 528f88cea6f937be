"""Text without a condition: surnames by likelihood, by scheduled sampling and by always sampling, at equal budgets.

    python -m launch --config configs/surnames_scheduled_sampling.py

Means of two seeds, which differ in the third digit; 13 min for the 8 runs on 2 CPU cores that had other work. The gap
is how much further the model is from a 5-gram of the training names after its own letters than after the data's, in
nats a letter:

                                          nats/char    gap   sampled
    likelihood                                2.101  0.031   bajodero mcdahleb grafnone muhomak
    scheduled sampling, inv. sigmoid to 1/2   2.293  0.098   bagsalhi melbanea grees mueneee
    scheduled sampling, 1/2 throughout        2.326  0.096   bagsalgi melbamea grees muepgee
    always sampling                           2.701  0.073   baetagkn miibciha goher muengdc

Exposure bias is what scheduled sampling was meant to cure, and here it makes it larger.
"""

from configs import surnames_likelihood

METHODS = (
    {"objective.name": "likelihood"},
    {
        "scheduled_sampling.keep_schedule": "inverse_sigmoid",
        "scheduled_sampling.keep_k": 330.0,
        "scheduled_sampling.keep_true": 0.5,
    },
    {"scheduled_sampling.keep_schedule": "constant", "scheduled_sampling.keep_true": 0.5},
    {"scheduled_sampling.keep_schedule": "constant", "scheduled_sampling.keep_true": 0.0},
)


def get_config():
    config = surnames_likelihood.get_config()
    config.objective.name = "scheduled_sampling"
    config.evaluate.evaluators = ("likelihood", "samples", "exposure")
    config.evaluate.exposure.ngram_order = 5
    config.evaluate.examples = 2048
    config.evaluate.every_steps = 1000
    config.sweep = tuple({**method, "seed": seed} for method in METHODS for seed in range(2))
    return config
