"""A run knows when it goes wrong: spikes are left out, and steps that are not sound are counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import health
from gentrain.errors import Diverged


def follow(losses, spike_sigma=6.0, step=0, state=None):
    """The state after these losses of one player, and for each loss whether it was taken for a spike, and for far."""

    @jax.jit
    def advance(carry, loss):
        state, step = carry
        spike = health.is_spike(state.losses["a"], loss, spike_sigma)
        applied = ~spike & jnp.isfinite(loss)
        state, far = health.observe(state, "a", loss, applied, step)
        return (health.count_step(state, applied, ~far & jnp.isfinite(loss)), step + 1), (spike, far)

    start = state or health.begin(["a"]), jnp.asarray(step)
    (state, _), flags = jax.lax.scan(advance, start, jnp.asarray(losses, jnp.float32))
    return jax.device_get(state), *map(np.asarray, flags)


def falling_losses(rng, steps):
    """As of a healthy run: from 5 towards 2, with noise that is a little skewed upwards."""
    return 2 + 3 * np.exp(-np.arange(steps) / 300) + 0.1 * rng.gamma(9.0, 1 / 3, steps)


def test_each_of_twenty_spikes_is_left_out_and_next_to_nothing_else():
    rng = np.random.default_rng()
    false, steps = 0, 2000
    for _ in range(5):
        losses = falling_losses(rng, steps)
        at = rng.choice(np.arange(health.WINDOW, steps), 4, replace=False)
        losses[at] *= 1000
        spikes = follow(losses)[1]
        # The later of two within one window hides behind the earlier, which is among what it is measured by.
        alone = [step for step in at if not any(0 < step - other <= health.WINDOW for other in at)]
        assert alone and spikes[alone].all()
        false += spikes.sum() - spikes[at].sum()
    assert false <= 1e-3 * 5 * steps


def test_without_a_guard_or_a_full_window_nothing_is_a_spike():
    losses = np.append(np.ones(300), 1e6)
    assert not follow(losses, spike_sigma=0.0)[1].any()
    assert not follow(losses[-health.WINDOW :])[1].any()
    assert follow(losses)[1].nonzero()[0].tolist() == [300]


def test_a_loss_that_rose_for_good_is_a_spike_once_or_twice():
    rng = np.random.default_rng()
    losses = np.append(falling_losses(rng, 600), 10 + falling_losses(rng, 200))
    spikes = follow(losses)[1].nonzero()[0]
    assert spikes[0] >= 600 and len(spikes) <= 5


def test_far_is_measured_from_the_first_finite_loss_in_its_own_size():
    for first, bound in ((3.0, 93.0), (-0.5, 29.5), (-50.0, 1450.0)):
        state, _, far = follow([np.nan, first, bound - 0.1, bound + 0.1, np.nan])
        assert far.tolist() == [False, False, False, True, False]
        assert state.first_loss["a"] == np.float32(first)


def test_sound_and_spoiled_steps_are_counted_in_a_row():
    def counts(state):
        return int(state.sound), int(state.spoiled), int(state.skipped["a"])

    state, _, _ = follow([np.nan, 1.0, 1.0, 1.0])
    assert counts(state) == (3, 0, 0)
    state, _, _ = follow([1e6, np.nan, np.inf], step=4, state=state)  # far and applied, then twice not finite
    assert counts(state) == (0, 3, 2)
    assert counts(follow([1.0], step=7, state=state)[0]) == (1, 0, 0)
    state, _, _ = follow([*np.ones(health.WINDOW), 9.0])  # a spike is left out, and the parameters are not spoiled
    assert counts(state) == (0, 0, 1)


def test_a_state_may_be_saved_while_no_player_is_stuck():
    numbers = health.Health({"a": 0, "b": 3}, {}, {}, 0, 2)
    assert health.check(9, health.Health({"a": 0, "b": 0}, {}, {}, 0, 4), 10)
    assert not health.check(9, numbers, 4)
    for patience, last in ((3, False), (4, True)):
        with pytest.raises(Diverged, match="b: 3 updates in a row were not finite, from step 6 on") as caught:
            health.check(9, numbers, patience, last)
        assert caught.value.since == 7
