"""MNIST, 5,000 training images of 28x28, against a learned critic of the same recipe as the digits'.

    python -m launch --config configs/mnist5k_adversarial.py                  # three seeds
    python -m launch --config configs/mnist5k_adversarial.py:conditional      # one, by class

2 min of CPU time a run, on one of 2 cores, and 1 min 30 s by class. In the features of a classifier of MNIST, where as
many training images have a Fréchet distance of 6.8, mean and standard deviation of three seeds:

                      precision    recall       density      coverage     frechet
    default           .71 (.02)    .76 (.05)    .53 (.02)    .65 (.03)    36.1 (5.7)
    :conditional      .85 (.02)    .58 (.07)    .95 (.04)    .85 (.02)    21.0 (2.8)

By default strokes are clean and various, but many samples are no digit yet. By class, spectral normalisation lost the
variety within each class, whose samples became one picture (recall 0, `generator/nearest` .18). That variant therefore
has r1 and r2 in its place, twice as dear a step.

At 64x64 in colour, crops of two photographs (`config.data.name=images:DIR`, a folder each), the default of one seed and
600 steps, 7 min of CPU time, learns what is where, the colours of both, and no texture yet. The alarm for collapse
rings at step 200, while all pictures are still one, and not again.
"""

from configs import base, digits_adversarial

VARIANTS = ("", "conditional")


def get_config(variant: str = ""):
    base.require_variant(variant, VARIANTS)
    config = digits_adversarial.get_config()
    config.steps = 1200
    config.data.name = "mnist5k"
    config.model.width = config.critic.width = 8
    config.model.dcgan.latent = 64
    config.sweep = base.grid({"seed": range(3)})
    if variant == "conditional":
        config.steps = 400
        config.data.conditional = True
        config.adversarial.spectral_norm = False
        config.adversarial.r1 = config.adversarial.r2 = 0.1
        config.optimizer.learning_rate = 3e-3
        config.training.ema_decay = 0.99
        config.log.every_steps = 50
        config.evaluate.every_steps = 200
        config.sweep = ()
    return config
