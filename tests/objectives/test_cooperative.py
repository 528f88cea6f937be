"""Cooperative training: the mediator is the mixture, the generator follows, and both end at the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, theory_adversarial
from gentrain import plugins
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.options.check import validate
from tests.objectives.helpers import every_string, final_metrics, first_moves, log_table, standard_errors, whole_batch

SPEC = TextSpec(3, 3)
EVERY = every_string(3, 3)


def settings(pi, **options):
    config = theory_adversarial.get_config()
    config.objective.name, config.objective.real_prior, config.sweep = "cooperative", pi, ()
    config.model.name = config.mediator.name = "tabular"
    config.cooperative.update(options)
    return config


def build(pi):
    return plugins.load("objectives", "cooperative").build(settings(pi), SPEC)


@pytest.mark.parametrize("pi", [0.2, 0.8])
def test_the_mediator_s_optimum_is_the_mixture(pi):
    """Its gradient vanishes at M = pi P + (1 - pi) Q on average, and nowhere near P or Q."""
    objective, random, rows = build(pi), np.random.default_rng(0), 512
    p = random.dirichlet(np.full(27, 0.8)).reshape((3,) * 3)
    generator = {"table": jnp.asarray(random.normal(0, 0.7, (13, 3)), jnp.float32)}
    q = np.exp(np.asarray(objective.model.log_prob(generator, jnp.asarray(EVERY)), np.float64)).reshape(p.shape)

    @jax.jit
    def gradient(mediator, tokens, key):
        def loss(mediator):
            players = {"generator": generator, "mediator": mediator}
            total, _ = objective.loss("mediator", players, {}, whole_batch(tokens), key, 0)
            return total.total / total.weight

        return jax.grad(loss)(mediator)["table"]

    def slope(mediator):
        """In its standard errors."""
        params, gradients = {"table": jnp.asarray(log_table(mediator))}, []
        for number in range(40):
            tokens = jnp.asarray(EVERY[random.choice(27, rows, p=p.ravel())])
            gradients.append(np.asarray(gradient(params, tokens, jax.random.key(number))))
        return standard_errors(np.stack(gradients))

    assert slope(pi * p + (1 - pi) * q) < 2 < 6 < min(slope(p), slope(q))


def test_the_mediator_s_rate_scales_its_own_step_alone():
    config = settings(0.3, mediator_rate=3.0)
    config.data.batch_size, config.optimizer.name, config.optimizer.clip_norm = len(EVERY), "sgd", 0.0
    for player, (distance, by_gradient) in first_moves(config, SPEC, whole_batch(EVERY)).items():
        assert distance == pytest.approx(by_gradient * (3 if player == "mediator" else 1), rel=1e-4), player
        assert distance > 0


def test_a_run_ends_at_the_data(tmp_path, run_on_one_device):
    config = settings(0.3, mediator_steps=1, mediator_rate=1.0)
    config.data.world.length, config.data.world.held_out = 3, 256
    config.steps = config.evaluate.every_steps = config.log.every_steps = 800
    config.optimizer.learning_rate = 0.05
    final = final_metrics(config, tmp_path)
    assert final["exact/max_error"] < 0.02 and final["exact/forward_kl"] < 1e-2


@pytest.mark.parametrize(
    ("section", "expected"),
    [("model", "a model of sequences"), ("mediator", "one of factorised, factorised_mixture, gpt2, lstm")],
)
def test_both_players_are_sequence_models(section, expected):
    config = base.get_config()
    config.objective.name, config.data.name, config.evaluate.evaluators = "cooperative", "digits", ("samples",)
    validate(config)
    config[section].name = "dcgan"
    with pytest.raises(ConfigError, match=f"{section}.name='dcgan': expected {expected}"):
        validate(config)
