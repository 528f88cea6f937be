"""Which objective draws the better pictures? One LSTM, pixel by pixel, seven ways, for as many CPU seconds.

python -m launch --config configs/digits_likelihood.py:mnist5k        # a Transformer, which teaches distillation
python -m launch --config configs/compare_images.py:mnist5k_start     # the LSTM, by likelihood
python -m launch --config configs/compare_images.py:mnist5k           # from there, each way, three seeds

`fashion` in place of `mnist5k` is of clothes. What came out: configs/RESULTS.md.
"""

from configs import base, compare_text

DATA = ("mnist5k", "fashion")
START = 500  # steps
STEPS = (310, 305, 92, 92, 92, 100, 180)  # 25 CPU seconds of each method, by `python -m launch.benchmark`


def get_config(variant: str = "mnist5k"):
    base.require_variant(variant, (*DATA, *(f"{data}_start" for data in DATA)))
    data, _, stage = variant.partition("_")
    config = base.get_config()
    config.data.name, config.data.image_size, config.data.levels = data, 14, 2
    config.data.batch_size = 32
    config.model.width = 128
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 5e-3, 50
    config.evaluate.evaluators = ("likelihood", "samples", "fidelity")
    config.evaluate.every_steps = 10_000  # at the end
    config.evaluate.examples = 1024
    config.log.every_steps = 50
    config.sample.count = 36
    if stage == "start":
        config.steps = START
        config.sweep = base.grid({"seed": range(compare_text.SEEDS)})
    else:
        config.data.skip_batches = ((0, START),)  # which the start has read
        compare_text.make_transformer(config.teacher, 64, 2)  # as configs/digits_likelihood.py has it
        compare_text.make_comparison(
            config, f"runs/compare_images-{data}_start", f"runs/digits_likelihood-{data}", STEPS
        )
    return config
