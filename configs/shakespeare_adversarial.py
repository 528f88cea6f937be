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

Of 2,000 words, from a likelihood checkpoint: 500 steps of likelihood, and 300 more of either.

    python -m launch --config configs/shakespeare_adversarial.py:words_likelihood
    python -m launch --config configs/shakespeare_adversarial.py:words

On 2 CPU cores that were not idle, 4 min, and then 3 min by likelihood and 6 to 10 against each critic. Nats a word;
reverse_kl is exposure/reverse_kl, from a 3-gram of the training plays; one seed, and another draw moved it by .005:

                              nll     reverse_kl    the critic's loss: at chance, first 20 steps, last 20
    after 500 steps          4.234       .672
    likelihood, 300 more     4.219       .653
    against a critic, .1     4.234       .675          .325    .324    .321
    against a critic, .5     4.237       .669          .693    .694    .684
    against a critic, .9     4.234       .663          .325    .323    .322

The critic is a copy of the generator at first, so it begins at chance, and it stays near. From scratch it has 8.2 nats
over the first 20 steps and 3.3 after 60, and misleads the generator. Going on by likelihood is better both ways.
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
