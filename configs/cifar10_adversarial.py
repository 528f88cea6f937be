"""CIFAR-10 by class with R3GAN's networks, relativistic loss and slope penalties (Huang et al., 2024), on one GPU.

    python -m launch.prepare --config configs/cifar10_adversarial.py        # once; needs tensorflow-cpu
    python -m launch --config configs/cifar10_adversarial.py

Mirrored images, no momentum, batches of 512, a cosine from 2e-4 to 5e-5, as in the paper; its penalties fall from .05
to .005 over training and its b2 rises from .9 to .99, where here both are constant, and its augmentation is adaptive.
It has not been run: `--dry_run` prints what the device holds, before the data are prepared too. The distance that
'fidelity' gives is in the features of a small classifier trained on CIFAR-10, not FID.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.steps = 40_000  # 2e7 images
    config.data.name = "tfds:cifar10"
    config.data.conditional = True
    config.data.batch_size = 512
    config.model.name = config.critic.name = "r3gan"
    config.model.width = config.critic.width = 128
    config.model.layers = config.critic.layers = 2
    config.model.r3gan.latent = 64
    config.objective.name = "adversarial"
    config.adversarial.generator_loss = "relativistic"
    config.adversarial.r1 = config.adversarial.r2 = 0.05
    config.adversarial.augment = ("flip",)
    config.optimizer.name = "adam"
    config.optimizer.b1 = 0.0
    config.optimizer.learning_rate = 2e-4
    config.optimizer.final_fraction = 0.25
    config.optimizer.clip_norm = 0.0
    config.training.mode = "shard_map"
    config.training.ema_decay = 0.9999
    config.checkpoint.every_steps = 2500
    config.log.every_steps = 100
    config.evaluate.evaluators = ("samples", "fidelity")
    config.evaluate.every_steps = 2500
    config.evaluate.examples = 5000
    config.sample.count = 64
    return config
