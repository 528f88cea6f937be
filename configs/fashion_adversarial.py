"""Fashion-MNIST, 60,000 images of 28x28, against a learned critic: the recipe of configs/mnist5k_adversarial.py.

    python -m launch --config configs/fashion_adversarial.py
    python -m launch --config configs/fashion_adversarial.py:conditional

About 4 min of CPU time on one of 2 cores by its first steps, .1 s each; 'fidelity' also trains a classifier in the
first run. It was run for 200 steps only, after which samples are grey clouds without an alarm; by class not at all.
"""

from configs import mnist5k_adversarial


def get_config(variant: str = ""):
    config = mnist5k_adversarial.get_config(variant)
    config.data.name = "fashion"
    config.steps = 2000
    config.evaluate.every_steps = 1000
    config.sweep = ()
    return config
