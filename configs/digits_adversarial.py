"""Digits of 8x8 grey pixels, whole images at a time, against a learned critic: along the dial, and by network.

    python -m launch --config configs/digits_adversarial.py               # DCGAN, three priors, three seeds
    python -m launch --config configs/digits_adversarial.py:resnet        # residual networks, three seeds
    python -m launch --config configs/digits_adversarial.py:r3gan         # R3GAN's, relativistic, r1 and r2
    python -m launch --config configs/digits_adversarial.py:conditional   # DCGAN by class, r1 and r2

CPU time of one run on one of 2 cores: 36 s, 40 s, 53 s and 34 s. Means and standard deviations over three seeds, in
the features of a classifier of the digits; as many training images have a Fréchet distance of 7.8:

    real_prior        precision     recall        density       coverage      frechet
    .1                .76 +- .02    .95 +- .04    .74 +- .05    .88 +- .01    10.0 +- 2.2
    .5                .77 +- .03    .92 +- .04    .73 +- .03    .86 +- .05     9.9 +- 3.5
    .9                .76 +- .02    .97 +- .02    .68 +- .03    .86 +- .05     8.9 +- 2.0
    :resnet           .75 +- .01    .90 +- .02    .59 +- .05    .75 +- .04    13.4 +- 3.1
    :r3gan            .72 +- .02    .89 +- .03    .61 +- .04    .71 +- .03    14.4 +- 3.6
    :conditional      .90           .82           1.14          .98            3.9            (one seed)
    training images   .95           .92           1.07          .96

The dial does not show here: recall does not fall as real_prior grows. Near the data all its divergences agree, and
under spectral normalisation the critic stays far from the optimum that they suppose. Random shifts
(adversarial.augment) do harm: at a learning rate of 3e-3 and 1,000 steps, coverage .69 with them and .90 without.
"""

from configs import base

VARIANTS = ("dcgan", "resnet", "r3gan", "conditional")


def get_config(variant: str = "dcgan"):
    base.require_variant(variant, VARIANTS)
    config = base.get_config()
    config.data.name = "digits"
    config.data.batch_size = 64
    config.model.name = config.critic.name = variant if variant in ("resnet", "r3gan") else "dcgan"
    config.model.width = config.critic.width = 16
    config.model[config.model.name].latent = 32
    config.objective.name = "adversarial"
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.0
    config.optimizer.clip_norm = 0.0
    config.log.every_steps = 100
    config.log.loggers = ()
    config.evaluate.evaluators = ("samples", "fidelity")
    config.sample.count = 64
    if variant == "r3gan":
        config.steps = 600
        config.adversarial.generator_loss = "relativistic"
        config.adversarial.r1 = config.adversarial.r2 = 0.05
        config.optimizer.learning_rate = 4e-3
        config.training.ema_decay = 0.98
        config.evaluate.every_steps = 300
        config.sweep = base.grid({"seed": range(3)})
        return config
    config.steps = 1200
    config.adversarial.spectral_norm = True
    config.optimizer.learning_rate = 6e-3
    config.training.ema_decay = 0.995
    config.evaluate.every_steps = 400
    config.sweep = base.grid({"objective.real_prior": (0.1, 0.5, 0.9), "seed": range(3)})
    if variant == "resnet":
        config.steps = 600
        config.optimizer.learning_rate = 3e-3
        config.training.ema_decay = 0.99
        config.evaluate.every_steps = 300
        config.sweep = base.grid({"seed": range(3)})
    if variant == "conditional":
        config.steps = 600
        config.data.conditional = True
        config.adversarial.spectral_norm = False
        config.adversarial.r1 = config.adversarial.r2 = 0.1
        config.optimizer.learning_rate = 3e-3
        config.evaluate.every_steps = 300
        config.sweep = ()
    return config
