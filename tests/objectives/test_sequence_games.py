"""Games of sequences by their formulas: what tokens are rewarded with, and which rows count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import plugins
from gentrain.datasets.spec import TextSpec
from gentrain.models.base import prefix_critic
from gentrain.objectives.adversarial.estimators import FAKES
from gentrain.objectives.adversarial.examples import Examples
from tests.objectives.helpers import every_string, whole_batch

KEY, LENGTH = jax.random.key(1), 3


def build(name, **options):
    """An objective, random parameters of its players, and its carry."""
    config = base.get_config()
    config.data.name, config.objective.name, config.objective.real_prior = "world:table", name, 0.3
    config.model.name = config.critic.name = config.mediator.name = "tabular"
    config[name].update(options)
    objective, random = plugins.load("objectives", name).build(config, TextSpec(3, LENGTH)), np.random.default_rng(0)
    params, carry = objective.init(KEY, whole_batch(every_string(3, LENGTH)))
    return objective, jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), params), carry


GAMES = [
    ("adversarial", {"prefixes": "all", "baseline": "none"}, {"critic": 40 * LENGTH}),  # every prefix
    ("adversarial", {"prefixes": "last", "baseline": "none"}, {"critic": 40, "generator": 20}),
    ("cooperative", {}, {"mediator": 40 * LENGTH, "generator": 20 * LENGTH}),
]


@pytest.mark.parametrize(("name", "options", "weights"), GAMES, ids=str)
def test_rows_that_only_fill_up_a_batch_count_for_nobody(name, options, weights):
    """20 of 27 rows are real: losses are the same whatever the others are, and count the real ones of both classes."""
    objective, params, carry = build(name, **options)
    filled = whole_batch(every_string(3, LENGTH))
    filled["mask"] &= (filled["row"] < 20)[:, None]
    other = filled | {key: jnp.where(filled["mask"][:, 0], filled[key].T, 1).T for key in ("tokens", "row")}
    loss = jax.jit(objective.loss, static_argnums=0)
    for player, weight in weights.items():
        (one, metrics), (two, same) = (loss(player, params, carry, batch, KEY, 0) for batch in (filled, other))
        assert one == two and one.weight == weight
        signs = ("diversity", "nearest", "apart")  # of collapse, which compare all rows
        assert all(metrics[key] == same[key] for key in metrics if key not in signs)


@pytest.mark.parametrize("family", ["tabular", "lstm"])
def test_a_critic_of_prefixes_says_nothing_at_the_start_and_is_not_stuck_there(family):
    """Its estimate of log P/Q is 0 after every prefix, at a slope that is not."""
    config, sequences = base.get_config().critic, every_string(3, LENGTH)
    config.name, config.width = family, 8
    critic = prefix_critic(plugins.load("models", family).build(config, TextSpec(3, LENGTH)))

    @jax.jit
    def at_start():
        def estimate(params):
            estimates = critic.apply(params, jnp.asarray(sequences))
            return estimates @ jnp.arange(1.0, LENGTH + 1) @ jnp.arange(1.0, len(sequences) + 1), estimates

        return jax.grad(estimate, has_aux=True)(critic.init(KEY))

    slope, estimates = jax.device_get(at_start())
    assert estimates.shape == sequences.shape and (estimates == 0).all()
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize("reward", ["sequence", "dense", "discounted"])
def test_a_token_is_rewarded_with_what_is_still_to_come(reward):
    """r_T, the reward of the whole; r_T - r_{t-1}, r_0 that of no token; sum_k discount^k (2 D_{t+k} - 1)."""
    pi, mask = 0.3, np.asarray([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
    estimator = build("adversarial", reward=reward, discount=0.8)[0].estimator
    params, batch = build("adversarial")[1], whole_batch(every_string(3, LENGTH)[[5, 11, 21]])
    fake = Examples(batch["tokens"], jnp.asarray(mask))
    logits = np.asarray(estimator.judge.logits(params, fake, batch))
    value = lambda logits: np.logaddexp(0, logits) / pi  # what 'js' rewards
    whole = value(logits[range(3), mask.sum(1) - 1])[:, None] + np.zeros((3, 3))
    before = np.concatenate([np.full((3, 1), np.log(pi / (1 - pi))), logits[:, :-1]], axis=1)
    gains = np.where(mask, np.tanh(logits / 2), 0)  # 2 D - 1
    discounts = 0.8 ** (np.arange(3)[None, :] - np.arange(3)[:, None])
    want = {"sequence": whole, "dense": whole - value(before), "discounted": gains @ np.tril(discounts.T)}[reward]
    to_come, total = jax.jit(estimator.rewards_to_come)(params, fake, batch, KEY)
    np.testing.assert_allclose(np.asarray(to_come)[mask], want[mask], rtol=1e-4)
    np.testing.assert_allclose(total, whole[:, 0], rtol=1e-4)


def test_a_row_s_baseline_is_the_mean_reward_of_the_other_rows():
    """sum_i (r_i - mean of r_j, j != i) (-log Q(x_i)), here of three rows whose reward is the critic's logit."""
    options = {"generator_loss": "reverse_kl", "reward": "sequence", "baseline": "leave_one_out"}
    objective, params, carry = build("adversarial", **options)
    batch = whole_batch(every_string(3, LENGTH)[:3])

    @jax.jit
    def parts():
        fake = objective.estimator.draw(params["generator"], batch, jax.random.fold_in(KEY, FAKES))
        reward = objective.judge.logits(params, fake, batch)[:, -1]
        total, _ = objective.loss("generator", params, carry, batch, KEY, 0)
        return reward, objective.model.log_prob(params["generator"], fake.values), total.total

    reward, log_q, total = parts()
    others = (reward.sum() - reward) / 2
    assert np.ptp(reward) > 0.1 and float(total) == pytest.approx(float((others - reward) @ log_q), rel=1e-4)
