"""Pictures along the dial: a mixture of ten factorised Bernoullis, too small on purpose, learns from a trained teacher.

python -m launch --config configs/digits_likelihood.py        # the teacher, an autoregressive Transformer
python -m launch --config configs/distill_digits.py:start     # pi = 0, on the teacher's own pictures
python -m launch --config configs/distill_digits.py           # from there, along the dial

`:mnist5k_start` and `:mnist5k` are of 5,000 digits of MNIST at 14x14, from `digits_likelihood.py:mnist5k`;
there pi = 0 is on the data's own pictures, since a picture of the teacher's takes 45 ms to draw. Results:
gentrain/objectives/README.md.
"""

from configs import base, digits_likelihood

VARIANTS = ("", "start", "mnist5k", "mnist5k_start")
SIZES = {"": ((0.1, 0.5, 0.9, 1.0), 5), "mnist5k": ((0.1, 0.9), 3)}  # priors and seeds


def get_config(variant: str = ""):
    base.require_variant(variant, VARIANTS)
    data = "mnist5k" if variant.startswith("mnist5k") else ""
    config = digits_likelihood.get_config(data or "digits")
    config.steps = 400
    config.data.batch_size = 128
    config.teacher.name = "transformer"
    config.teacher.width, config.teacher.layers = config.model.width, config.model.layers
    config.teacher.transformer.heads = config.teacher.transformer.kv_heads = 4
    config.model = base.get_config().model
    config.model.name = "factorised_mixture"
    config.model.factorised_mixture.components = 10
    config.objective.name = "distillation"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.02
    config.optimizer.weight_decay = 0.0
    config.log.every_steps = 100
    config.evaluate.evaluators = ("teacher", "fidelity", "components", "samples")
    config.evaluate.every_steps = config.steps
    config.evaluate.examples = 256 if data else 1024
    priors, seeds = SIZES[data]
    config.report.figures = ("pictures_dial",)
    teacher = ("teacher", f"runs/digits_likelihood{data and '-mnist5k'}", "generator")
    if variant.endswith("start"):
        config.report.figures = ()
        config.objective.real_prior, config.distillation.prefixes = 0.0, "data" if data else "teacher"
        config.optimizer.learning_rate = 0.05
        config.init_from = (teacher,)
        config.sweep = tuple({"seed": seed} for seed in range(seeds))
        return config
    config.distillation.level, config.distillation.baseline = "sequence", "leave_one_out"
    methods = [{"objective.real_prior": prior} for prior in priors]
    config.sweep = base.from_starts(methods, f"runs/distill_digits-{data and 'mnist5k_'}start", seeds, teacher)
    return config
