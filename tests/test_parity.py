"""The same curve on another layout: every objective, against one device.

The control takes 100 steps in float32, by AdamW with clipping and averages, on ragged rows, with toys of 2,000 to 9,000
parameters. Another layout takes them from the seed, and single steps from the control's own states at 0, 10, …, 99: in
these nothing adds up, and they compare every leaf's gradient, where a curve would hide a wrong factor behind Adam.

Where tokens are drawn in the step, one whose number lies within rounding of a boundary could turn over, and from there
the curves would differ rightly: the curve would jump while the single steps, all but that one, agree. In all cells
below (3 million drawn tokens) none did, so these objectives are held to the limits of the others. (With seed 0 one does
in "adversarial, tokens, split", on every layout, so that case has seed 3.)

Two measures are relative to more than the number itself. A curve's gap is so to the player's largest loss, because the
surrogates of score functions cross 0; and a leaf's, after step 0, to at least 1 % of the player's gradient, because the
gradient of a critic's last bias is a difference that nearly vanishes when the classes balance.

The most of all layouts, with and without dropout, on 2 CPU cores (`pytest -m slow -s`, 28 min with the processes):

                                  step 0  10 steps    curve    again  gradient  gradients     norm
    limit                           4e-6      1e-5     2e-4     4e-6      1e-5       1e-5     1e-4
    likelihood                    1.8e-6    2.3e-6   9.0e-7   7.3e-7    3.9e-7     8.7e-7   2.2e-7
    likelihood, transformer       1.3e-6    1.5e-6   6.3e-7   6.4e-7    6.7e-7     7.5e-7   2.7e-7
    likelihood, gpt2              5.0e-7    2.5e-6   6.8e-7   3.9e-7    4.2e-7     1.0e-6   2.7e-7
    scheduled sampling            1.5e-6    1.6e-6   6.0e-7   5.8e-7    3.6e-7     9.0e-7   3.3e-7
    scheduled sampling, exact     5.0e-7    1.8e-6   6.1e-7   3.4e-7    6.3e-7     7.2e-7   2.0e-7
    adversarial, tokens           1.1e-6    1.1e-6   1.7e-6   1.1e-6    5.0e-6     5.0e-6   6.5e-7
    adversarial, tokens, split    1.1e-6    5.7e-6   1.8e-6   1.1e-6    3.4e-6     3.4e-6   5.9e-7
    adversarial, points           6.0e-8    2.4e-7   3.2e-7   2.1e-7    4.6e-7     1.9e-6   2.3e-7
    adversarial, images           1.2e-7    2.4e-7   4.2e-5   3.1e-7    7.3e-7     7.5e-6   6.2e-7
    cooperative                   6.7e-7    1.3e-6   1.3e-6   4.8e-7    5.0e-7     3.0e-6   2.0e-7
    divergence                         0    1.8e-7   1.9e-7   1.8e-7    5.0e-7     8.8e-6   4.4e-7

Processes over loopback, every objective for 40 steps, two on data=4 and four on fsdp=4: step 0 1.3e-6, 10 steps 3.8e-6,
curve 1.8e-6; and two processes end in the bits of one with their devices.
"""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from gentrain import sharding, train
from gentrain.errors import Stopped
from gentrain.objectives.likelihood import Likelihood
from gentrain.runtime import peers
from gentrain.runtime.checkpoint import Checkpoints
from gentrain.sums import Sum
from tests import parity
from tests.helpers import ROOT, StopAt, environment

pytestmark = pytest.mark.usefixtures("no_mesh")

SHORT, LONG, APART = 10, 100, 40  # steps; the last of processes
SPLIT = ("microbatches=2", "microbatches=4", "shard_map", "shard_map, all axes")  # they need sums over examples
SEQUENCE = ("sequence", "sequence, by chunks")
LAYOUTS = ("data=8", "fsdp=8", "tensor=4", "all axes", *SPLIT, *SEQUENCE)
DROPPED = ("tensor=4", "all axes", "microbatches=4", "shard_map", "sequence")  # with dropout too
CELLS = [
    (case, layout, dropout)
    for case in parity.CASES
    for layout in LAYOUTS
    for dropout in ((0.0, 0.1) if layout in DROPPED and case != "divergence" else (0.0,))
    if not (layout in SPLIT and case in parity.WHOLE) and not (layout in SEQUENCE and case not in parity.SIDE_BY_SIDE)
]
TELLING = [
    ("likelihood", "shard_map", 0.1),
    ("likelihood, transformer", "sequence, by chunks", 0.1),
    ("scheduled sampling", "fsdp=8", 0.0),
    ("scheduled sampling, exact", "all axes", 0.0),
    ("adversarial, tokens", "data=8", 0.0),
    ("adversarial, points", "microbatches=2", 0.0),
    ("adversarial, images", "shard_map", 0.1),
    ("cooperative", "microbatches=4", 0.0),
    ("divergence", "all axes", 0.0),
]


@pytest.fixture(autouse=True)
def split_even_small_arrays(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 1)


@pytest.fixture(scope="module")
def straight():
    """straight(case, dropout, steps): the trace on one device, made once, and twice to the same bits."""
    made = {}

    def of(case, dropout, steps):
        if (case, dropout, steps) not in made:
            run = parity.build(parity.config(case, "one", dropout))
            made[case, dropout, steps] = found = parity.trace(run, range(steps), kept(steps))
            again = parity.trace(run, range(steps), (steps - 1,))
            assert parity.digest(again.after[steps - 1]) == parity.digest(found.after[steps - 1])
        return made[case, dropout, steps]

    return of


def kept(steps: int) -> list[int]:
    return [*range(0, steps, 10), steps - 1]


def apart(control, case, layout, dropout, steps):
    """How far a layout is from the control, over the curve and in single steps."""
    run = parity.build(parity.config(case, layout, dropout))
    start = {0: control.before[0]} if steps == SHORT else {}  # to compile the initial state as well takes its time
    found = parity.curves(control, parity.trace(run, range(steps), starts=start))
    return found | parity.single_steps(control, parity.trace(run, kept(steps), kept(steps), control.before))


@pytest.mark.parametrize(("case", "layout", "dropout"), TELLING)
def test_every_objective_has_the_curve_of_one_device(straight, case, layout, dropout):
    found = apart(straight(case, dropout, SHORT), case, layout, dropout, SHORT)
    assert not parity.exceeded(found)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "layout", "dropout"), CELLS)
def test_every_layout_has_the_curve_of_one_device(straight, case, layout, dropout):
    found = apart(straight(case, dropout, LONG), case, layout, dropout, LONG)
    print(case, layout, dropout, {name: f"{value:.1e}" for name, value in found.items()}, sep=" | ")
    assert not parity.exceeded(found)


def together(folder, case, layout, steps, processes):
    """What several processes on this machine leave behind, of four devices in all."""
    address = f"127.0.0.1:{peers.free_port()}"
    out = folder / f"{processes}.json"
    command = [sys.executable, "-m", "tests.parity", case, layout, str(steps), str(out), address, str(processes)]
    env = environment(JAX_NUM_CPU_DEVICES=str(4 // processes))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    children = [subprocess.Popen([*command, str(i)], cwd=ROOT, env=env, **pipes) for i in range(processes)]
    try:
        outputs = [child.communicate(timeout=240)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0] * processes, outputs
    return parity.read(out)


@pytest.mark.parametrize("steps", [SHORT, pytest.param(APART, marks=pytest.mark.slow)])
def test_two_processes_are_one_with_their_devices_to_the_bit(tmp_path, steps):
    case, layout = "likelihood", "fsdp=2, tensor=2"
    two = together(tmp_path, case, layout, steps, processes=2)
    one = parity.trace(parity.build(parity.config(case, layout)), range(steps), keep=(steps - 1,))
    assert two.batches == one.batches
    assert two.after == {step: parity.digest(state) for step, state in one.after.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "layout", "processes"),
    [
        *((case, *apart) for case in parity.CASES for apart in (("data=4", 2), ("fsdp=4", 4))),
        *((case, "sequence=4", 2) for case in parity.SIDE_BY_SIDE),
    ],
)
def test_processes_have_the_curve_of_one_device(straight, tmp_path, case, layout, processes):
    found = together(tmp_path, case, layout, APART, processes)
    distance = parity.curves(straight(case, 0.0, APART), found)
    print(case, layout, processes, {name: f"{value:.1e}" for name, value in distance.items()}, found.after, sep=" | ")
    assert not parity.exceeded(distance)


# --- What the battery must find ---------------------------------------------------------------------------------------


def one_leaf_is_not_summed(monkeypatch):
    psum = jax.lax.psum

    def most(tree, axes):
        first, *others = jax.tree.leaves(tree)
        return jax.tree.unflatten(jax.tree.structure(tree), [first, *psum(others, axes)])

    monkeypatch.setattr(jax.lax, "psum", most)


def changed_loss(monkeypatch, change):
    """change(loss, batch, key) in place of loss(key)."""
    loss = Likelihood.loss

    def changed(self, player, params, carry, batch, key, step):
        return change(lambda key: loss(self, player, params, carry, batch, key, step), batch, key)

    monkeypatch.setattr(Likelihood, "loss", changed)


def means_are_averaged(monkeypatch):
    def each(loss, batch, key):
        (total, weight), extra = loss(key)
        rows = jnp.float32(len(batch["row"]))
        return Sum(total / weight * rows, rows), extra

    changed_loss(monkeypatch, each)


def keys_are_by_device(monkeypatch):
    def own(loss, batch, key):
        device = jax.lax.axis_index(sharding.BATCH_AXES)
        return loss(jnp.where(device == 0, key, jax.random.fold_in(key, device)))

    changed_loss(monkeypatch, own)


@pytest.mark.parametrize(
    ("mutant", "layout", "found"),
    [
        (one_leaf_is_not_summed, "shard_map", {"gradient"}),
        (means_are_averaged, "microbatches=4", {"step 0", "gradient"}),
        (keys_are_by_device, "shard_map", {"step 0", "gradient"}),
    ],
)
def test_a_broken_update_is_found(straight, monkeypatch, mutant, layout, found):
    control = straight("likelihood", 0.1, SHORT)
    mutant(monkeypatch)
    assert parity.exceeded(apart(control, "likelihood", layout, 0.1, SHORT)).keys() >= found


def a_batch_is_skipped(monkeypatch):
    prefetch = train.prefetch

    def later(make, start, *rest):
        return prefetch(lambda step: make(step + (start > 0)), start, *rest)

    monkeypatch.setattr(train, "prefetch", later)


def changed_restore(monkeypatch, change):
    restore = Checkpoints.restore

    def changed(self, target, *rest):
        found = restore(self, target, *rest)
        return found and (found[0], change(found[1]), *found[2:])

    monkeypatch.setattr(Checkpoints, "restore", changed)


def averages_are_forgotten(monkeypatch):
    changed_restore(monkeypatch, lambda state: replace(state, ema=jax.tree.map(jnp.copy, state.params)))


def moments_are_the_critics(monkeypatch):
    def swapped(state):
        critics = jax.tree.map(jnp.copy, state.opt_state["critic"])
        return replace(state, opt_state=state.opt_state | {"generator": critics})

    changed_restore(monkeypatch, swapped)


@pytest.fixture(scope="module")
def game():
    """A run of two players of one kind, for trains that stop."""
    config = parity.config("adversarial, tokens", "one")
    config.evaluate.evaluators, config.log.loggers = (), ()
    return parity.build(config)


def stopped(run, step):
    """Trains on from where the workdir stands until a signal after a step."""
    with pytest.raises(Stopped):
        train.train(run.config, run.workdir, StopAt(step))


def saved(run):
    return parity.digest(jax.device_get(train.restored(run)[0]))


@pytest.mark.parametrize("mutant", [None, a_batch_is_skipped, averages_are_forgotten, moments_are_the_critics])
def test_a_resumed_run_is_the_same_and_a_broken_resume_is_found(game, tmp_path, monkeypatch, mutant):
    runs = {name: game._replace(workdir=tmp_path / name) for name in ("straight", "resumed")}
    for name, steps in (("straight", [6]), ("resumed", [3, 6])):
        with monkeypatch.context() as patch:
            patch.setattr(train, "build", lambda config, workdir, allow=(): game)
            for step in steps:
                if mutant and step == 6:
                    mutant(patch)
                stopped(runs[name], step)
    assert (saved(runs["straight"]) == saved(runs["resumed"])) == (mutant is None)
