"""A few of Shakespeare's lines, repeated, and WordNet's definitions mixed in: what is that worth in lines of its own?

python -m launch --config configs/mixing.py
"""

from configs import base

EXAMPLES = (16, 64, 256, 1024, 4096)  # rows of 128 characters of Shakespeare that are there
SHARES = (0.0, 0.25, 0.5, 0.75)  # of the rows of a batch that are WordNet's
MORE = 16384  # rows without a mixture, to compare mixtures with


def sources(share: float, examples: int) -> tuple:
    """`examples` rows of Shakespeare, repeated as often as needed, and a share of WordNet's."""
    wordnet = (("wordnet", share, 0),) if share else ()
    return (("shakespeare", 1.0 - share, 0, examples), *wordnet)


def get_config():
    config = base.get_config()
    config.steps = 600
    config.data.name = "mixture"
    config.data.mixture.sources = sources(0.0, EXAMPLES[0])
    config.data.tokenizer = "bytes"  # the same tokens whatever is mixed in
    config.data.layout = "pack"
    config.data.length = 128
    config.data.batch_size = 16
    config.model.width = 128
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 50
    config.evaluate.evaluators = ("likelihood", "samples")
    config.evaluate.every_steps = 50
    config.evaluate.batches = 24
    config.sample.count = 4
    mixtures = [sources(share, examples) for share in SHARES for examples in EXAMPLES]
    config.sweep = base.grid({"seed": (0, 1), "data.mixture.sources": (*mixtures, sources(0.0, MORE))})
    config.report.figures = ("mixing",)
    return config
