"""A few of Shakespeare's lines, repeated, and WordNet's definitions mixed in: what is that worth in lines of its own?

    python -m launch --config configs/mixing.py

42 runs of 600 steps, 20 CPU seconds each, in 33 min on one core of a busy CPU. The least NLL of held-out plays over the
run (384 rows, every 50 steps), nats/character, means of two seeds that are at most .035 apart; and how many times the
rows a run without WordNet needs for it. The paper (Jeha, Sedova, Béthune et al., 2026, arXiv 2605.13225) has 2 to 3.

    rows    passes at share 0     share 0    .25            .5             .75
       16   600                   2.646      2.620  1.1 x   2.515  1.9 x   2.466  2.3 x
       64   150                   2.353      2.309  1.3 x   2.274  1.6 x   2.254  1.7 x
      256    37.5                 2.108      2.081  1.3 x   2.091  1.2 x   2.143   .8 x
    1,024     9.4                 1.971      1.984   .9 x   2.013   .7 x   2.086   .3 x
    4,096     2.3                 1.881      1.903   .7 x   1.955   .3 x   2.028   .1 x
   16,384      .6                 1.861

A mixture pays where rows would be repeated 150 times and more, and costs where they would be fewer than ten: all runs
have the same steps, so WordNet takes them from the plays. What it gains at 256 rows, and with a quarter at 16, is no
more than seeds differ by. It also matters less when such a run stops: 64 rows alone are at their best after 100 steps
and have 3.12 at the end, and with three quarters of WordNet they are at their best there. The target's NLL is not what
to choose a share by where what WordNet says is wanted too: WordNet's own held-out NLL falls from 2.16 to 1.83 between
the shares .25 and .75 at 64 rows, and from 2.04 to 1.83 at 4,096, where that of the plays rises.
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
