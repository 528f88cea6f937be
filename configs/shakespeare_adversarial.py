"""Shakespeare's plays from scratch against a critic, no likelihood anywhere: learned on pieces of 12 characters,
written in lines of any length.

    python -m launch --config configs/shakespeare_adversarial.py
    python -m launch --config configs/shakespeare_adversarial.py --mode=sample --config.sample.count=20

7 min of training on one of 2 cores: 2.213 nats/char held out on such pieces, and 2.132 on pieces of 32, where every
character has seen more before it (after 900 steps 2.331, on 12). It writes

    ded to all out him in Andn'dand heaved than,
    That encoll lawip '

    Or good no law'd bitly have your be,
    Class thou lime; thine.

Pieces that are longer at the start (16 characters) make the critic certain at once, and the generator ends nowhere.
Once it has learned short ones it can go on with longer ones (`config.init_from`, 32 characters, 300 steps at a rate of
1e-3), but gained nothing there, 2.134. configs/shakespeare_cooperative.py has no such limit.

Of words, from a likelihood checkpoint, two commands:

    python -m launch --config configs/shakespeare_adversarial.py:words_likelihood
    python -m launch --config configs/shakespeare_adversarial.py:words

TABLE
"""

from configs import base

VARIANTS = ("", "words_likelihood", "words")


def get_config(variant: str = ""):
    base.require_variant(variant, VARIANTS)
    config = base.get_config()
    config.steps = 3000
    config.data.name = "shakespeare"
    config.data.length = 12
    config.data.batch_size = 128
    config.model.width = 128
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.5
    config.optimizer.learning_rate = 5e-3
    config.log.every_steps = 100
    config.evaluate.evaluators = ("likelihood", "samples")
    config.evaluate.batches = 20
    config.evaluate.every_steps = 1000
    config.sample.length = 64
    config.sample.count = 8
    if variant != "words_likelihood":
        config.critic.width = 128
        config.objective.name = "adversarial"
        config.adversarial.known_density = True
    if variant:
        config.data.tokenizer, config.data.vocab_size = "words", 2000
        config.sample.length = 0
        config.steps = 500
        config.log.every_steps = 20
        config.evaluate.evaluators = ("likelihood", "exposure", "samples")
        config.evaluate.exposure.ngram_order = 3
        config.evaluate.examples = 1024
        config.evaluate.every_steps = 250
    if variant == "words":
        config.init_from = "runs/shakespeare_adversarial-words_likelihood"
        config.steps = 300
        config.optimizer.learning_rate = 1e-3
        config.evaluate.every_steps = 100
        game = {"objective.name": "adversarial"}
        config.sweep = (
            {"objective.name": "likelihood"},
            *(game | {"objective.real_prior": pi} for pi in (0.1, 0.5, 0.9)),
        )
    return config
