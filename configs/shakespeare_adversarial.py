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
"""

from configs import base


def get_config():
    config = base.get_config()
    config.steps = 3000
    config.data.name = "shakespeare"
    config.data.length = 12
    config.data.batch_size = 128
    config.model.width = config.critic.width = 128
    config.objective.name = "adversarial"
    config.adversarial.generator_loss = "js"
    config.adversarial.known_density = True
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.5
    config.optimizer.learning_rate = 5e-3
    config.log.every_steps = 100
    config.evaluate.evaluators = ("likelihood", "samples")
    config.evaluate.batches = 20
    config.evaluate.every_steps = 1000
    config.sample.length = 64
    config.sample.count = 8
    return config
