"""SmolLM2 (135 M parameters) teaches a Transformer of a tenth of its size to go on with Shakespeare's plays.

    python -m launch --config configs/distill_smollm2.py:start    # the students, by likelihood
    python -m launch --config configs/distill_smollm2.py          # from there, each way for as many CPU seconds

32 tokens after prompts of 16. Means of three seeds; the KLs are of the 32 tokens, in nats, the others in nats/token.
Standard deviations over seeds are .02 held out, 1 to 2 of KL[Q||P], 1 to 9 of KL[P||Q], .03 to .3 of the rest. 150 CPU
seconds of steps each, by the times that `python -m launch.benchmark` has of them on one core, and 6 min before for the
start; the runs themselves took 110 s (likelihood) to 180 s (the teacher's sequences).

                                  held out  KL[P||Q]  KL[Q||P]   samples, by    entropy   distinct    ExAccErr
                                                                 the teacher              bigrams    8, 32 tokens
    the start                       4.92      108       64.3         7.05         5.04       .92      -.11   -.29
    likelihood                      4.91      105       64.4         6.87         4.85       .91      -.16   -.30
    pi = 0, the teacher's           5.26       75       56.1         8.31         6.56       .93      -.14   -.32
    pi = 0, the data's prefixes     5.06       75       52.5         7.52         5.88       .92      -.15   -.36
    pi = 1/2, its own               5.28       85       45.6         6.74         5.32       .91      -.19   -.38
    pi = 1, its own                 5.49      110       42.6         5.59         4.26       .83      -.21   -.38
    pi = 1, whole sequences         5.56      134       43.3         5.38         4.03       .78      -.25   -.43
    the teacher; real plays                                          3.9                     .88

Each end of the dial is best at what it minimises, and entropy falls from the one to the other. SmolLM2's law is not
that of the plays: on them likelihood alone gains, and who learns from the teacher loses. Sequences of the teacher's
own (sequence-level distillation, here with its whole law at each token) come as near to it as the data's do, with half
as many steps. The KL from the teacher is less on a student's own prefixes than on the teacher's, and the more so the
longer: exposure bias does not accumulate here either. Single + Long has the samples that the teacher finds likeliest,
the least varied ones, and no less KL[Q||P] than tokens one by one.
"""

from configs import base, distill_shakespeare

TEACHER = ("teacher", "smollm2-135m", "generator")
START = 900  # steps
READING = {"distillation.prefixes": "data", "data.skip_batches": ((0, START),)}  # on where the start stopped
METHODS = (  # each for 150 CPU seconds of one core: `python -m launch.benchmark` has the milliseconds of a step of each
    {"steps": 350, "distillation.likelihood": 1.0, "distillation.prompt": 0, **READING},
    {"steps": 46, "objective.real_prior": 0.0, "distillation.prefixes": "teacher"},
    {"steps": 105, "objective.real_prior": 0.0, **READING},
    {"steps": 79, "objective.real_prior": 0.5},
    {"steps": 92, "objective.real_prior": 1.0},
    {"steps": 91, **distill_shakespeare.WHOLE},
)
SEEDS = 3


def get_config(variant: str = ""):
    base.require_variant(variant, ("", "start"))
    config = base.get_config()
    config.steps = START
    config.data.name = "shakespeare"
    config.data.length = 48
    config.data.batch_size = 8
    config.model.name = "transformer"
    config.model.width, config.model.layers = 192, 8
    config.model.transformer.heads, config.model.transformer.kv_heads = 6, 6
    config.model.transformer.tie_embeddings = True
    config.objective.name = "distillation"
    config.distillation.prompt = 16
    config.init_from = (TEACHER,)
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 100
    config.optimizer.weight_decay = 0.1
    config.evaluate.evaluators = ("likelihood", "teacher", "text_quality", "samples")
    config.evaluate.every_steps = 10_000  # at the end
    config.evaluate.examples = 64
    config.evaluate.batches = 40
    config.evaluate.teacher.prompt = config.distillation.prompt
    config.evaluate.text_quality.judge_steps = 0
    config.log.every_steps = 20
    if variant == "start":
        config.distillation.likelihood, config.distillation.prefixes, config.distillation.prompt = 1.0, "data", 0
        config.sweep = base.grid({"seed": range(SEEDS)})
        return config
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 5e-4, 10
    config.sweep = base.from_starts(METHODS, "runs/distill_smollm2-start", SEEDS, TEACHER)
    return config
