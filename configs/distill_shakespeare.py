"""Plays by characters: a student of a quarter of its teacher's size, along the dial from KL[P||Q] to KL[Q||P].

    python -m launch --config configs/shakespeare_likelihood.py       # the teacher
    python -m launch --config configs/distill_shakespeare.py:start    # the students, by likelihood
    python -m launch --config configs/distill_shakespeare.py          # from there, each way for as many CPU seconds

Means of three seeds; the KLs are of rows of 64 characters, in nats, the others in nats/char. Standard deviations over
seeds are .02 and less, of the KLs .1 to .5. 50 CPU seconds of steps each, by the times that `launch.benchmark` has of
them on one core, and as many before for the start; runs that had a core alone took 31 s (likelihood) to 46 s.

                                  held out  KL[P||Q]  KL[Q||P]   samples, by    entropy   distinct    ExAccErr
                                                                 the teacher              bigrams
    the start                       1.689     17.5      25.2        2.157        1.762      .831        .10
    likelihood                      1.611     13.3      19.7        1.985        1.677      .822        .19
    pi = 0, the data's prefixes     1.589     10.9      16.4        1.885        1.628      .816        .20
    pi = 0, its own                 1.656     14.6      19.6        2.063        1.756      .836       -.03
    pi = 1/2, its own               1.665     14.9      15.1        1.844        1.608      .818       -.09
    pi = 1, its own                 1.709     17.4      14.2        1.751        1.530      .802       -.13
    pi = 1, whole sequences         1.724     18.2      14.3        1.751        1.528      .801       -.18
    the teacher; real plays         1.486                           1.443                   .748

Each end of the dial is best at what it minimises. A teacher beside the data is worth more than the data alone for as
many seconds, though a step costs 1.3 times as much. Own prefixes cost twice as much and pay for KL[Q||P] alone; held
out and in KL[P||Q] the data's are better. ExAccErr is that of whole rows; of their first quarters it is within .06 of
it, so that exposure bias hardly accumulates. Whole sequences (Single + Long) are no better than tokens one by one here.
"""

from configs import base, shakespeare_likelihood

TEACHER = ("teacher", "runs/shakespeare_likelihood", "generator")
LIKELIHOOD = {"distillation.likelihood": 1.0, "distillation.prefixes": "data"}
WHOLE = {"objective.real_prior": 1.0, "distillation.level": "sequence", "distillation.long_term": "mean"}
METHODS = (  # each for 50 CPU seconds of one core: `python -m launch.benchmark` has the milliseconds of a step of each
    {"steps": 1250, **LIKELIHOOD},
    {"steps": 980, "objective.real_prior": 0.0, "distillation.prefixes": "data"},
    {"steps": 615, "objective.real_prior": 0.0},
    {"steps": 615, "objective.real_prior": 0.5},
    {"steps": 615, "objective.real_prior": 1.0},
    {"steps": 585, **WHOLE},
)
SEEDS = 3


def get_config(variant: str = ""):
    base.require_variant(variant, ("", "start"))
    config = shakespeare_likelihood.get_config()
    config.data.length = 64
    config.data.batch_size = 16
    config.teacher.name = "transformer"
    config.teacher.width, config.teacher.layers = config.model.width, config.model.layers
    config.model.width, config.model.layers = 64, 4
    config.objective.name = "distillation"
    config.evaluate.evaluators = ("likelihood", "teacher", "text_quality", "samples")
    config.evaluate.every_steps = 2000  # at the end
    config.evaluate.examples = 1024
    config.evaluate.batches = 100
    config.evaluate.text_quality.judge_steps = 0
    if variant == "start":
        config.init_from = (TEACHER,)
        config.distillation.likelihood, config.distillation.prefixes = 1.0, "data"
        config.steps = METHODS[0]["steps"]
        config.sweep = base.grid({"seed": range(SEEDS)})
        return config
    config.data.skip_batches = ((0, METHODS[0]["steps"]),)  # which the start has read
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 50
    config.sweep = base.from_starts(METHODS, "runs/distill_shakespeare-start", SEEDS, TEACHER)
    return config
