"""Cooperative training: the mediator is the mixture, the generator follows, and both end at the data."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import theory_adversarial
from gentrain import models, plugins, sharding, train, worlds
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.process import Stop

SPEC = Spec(3, 3, None, "text", str)
EVERY = np.indices((3,) * 3).reshape(3, -1).T


def settings(pi):
    config = theory_adversarial.get_config()
    config.objective.name, config.objective.real_prior, config.sweep = "cooperative", pi, ()
    config.model.name = config.critic.name = "tabular"
    return config


@pytest.mark.parametrize("pi", [0.2, 0.8])
def test_the_mediator_s_optimum_is_the_mixture(pi):
    """Its gradient vanishes at M = pi P + (1 - pi) Q on average, and nowhere near P or Q."""
    built = plugins.load("objectives", "cooperative").build(settings(pi), SPEC)
    random = np.random.default_rng(0)
    p = random.dirichlet(np.full(27, 0.8)).reshape((3,) * 3)
    own = {"table": jnp.asarray(random.normal(0, 0.7, (13, 3)), jnp.float32)}
    q = np.exp(np.asarray(models.log_prob(built.model, own, jnp.asarray(EVERY)), np.float64)).reshape(p.shape)
    table = lambda law: {
        "table": jnp.log(jnp.concatenate([jnp.asarray(x.reshape(-1, 3)) for x in worlds.conditionals(law)]))
    }
    rows = 512

    @jax.jit
    def gradient(mediator, tokens, key):
        batch = {"tokens": tokens, "mask": jnp.ones((rows, 3), bool), "row": jnp.arange(rows)}
        loss = lambda m: built.loss("mediator", {"generator": own, "mediator": m}, {}, batch, key, 0)[0]
        return jax.grad(lambda m: loss(m).total / loss(m).weight)(mediator)["table"]

    def off(mediator):
        found = []
        for number in range(40):
            tokens = jnp.asarray(EVERY[random.choice(27, rows, p=p.ravel())])
            found.append(np.asarray(gradient(table(mediator), tokens, jax.random.key(number))))
        error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
        return np.sqrt(np.mean(np.square(np.mean(found, axis=0) / np.maximum(error, 1e-9))))

    assert off(pi * p + (1 - pi) * q) < 2 < 6 < min(off(p), off(q))


@pytest.mark.parametrize("pi", [0.3])
def test_a_run_ends_at_the_data(tmp_path, monkeypatch, pi):
    monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    config = settings(pi)
    config.data.world.length, config.data.world.held_out, config.adversarial.critic_steps = 3, 256, 1
    config.steps = config.evaluate.every_steps = config.log.every_steps = 800
    config.optimizer.learning_rate, config.adversarial.critic_rate = 0.05, 1.0
    train.train(config, tmp_path, Stop())
    final = json.loads((tmp_path / "report.json").read_text())["final"]
    assert final["exact/max_error"] < 0.02 and final["exact/forward_kl"] < 1e-2


def test_both_players_are_sequence_models():
    config = settings(0.5)
    config.model.name = config.critic.name = "mlp"
    with pytest.raises(ConfigError, match=r"critic\.name of sequences"):
        plugins.load("objectives", "cooperative").build(config, Spec(0, 2, None, "points", str))
