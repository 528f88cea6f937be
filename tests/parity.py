"""The same run on another layout: toy runs of every objective, what they leave behind, and how far apart two are.

Run as a script it is one of several processes that train together, each on as many devices as JAX_NUM_CPU_DEVICES says:

    python -m tests.parity CASE LAYOUT STEPS OUT ADDRESS PROCESSES INDEX
"""

import hashlib
import math
import sys
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from configs import base
from gentrain import files, program, sharding
from gentrain.datasets import build as building
from gentrain.runtime import peers
from gentrain.sums import Sum, mean
from gentrain.train import Run
from gentrain.update import TrainState

TOKENS = {"data.length": 12, "data.batch_size": 32, "model.width": 16}
TRANSFORMER = TOKENS | {"model.name": "transformer", "model.layers": 2, "model.transformer.kv_heads": 2}
SAMPLING = {
    "objective.name": "scheduled_sampling",
    "scheduled_sampling.keep_schedule": "linear",
    "scheduled_sampling.keep_true": 0.25,
    "scheduled_sampling.keep_k": 0.75,
    "scheduled_sampling.keep_slope": 0.005,
}
EXACT = SAMPLING | {"scheduled_sampling.mode": "exact", "scheduled_sampling.window": 4}
GAME = {"objective.name": "adversarial", "objective.real_prior": 0.3}
TOKEN_GAME = TOKENS | GAME | {"critic.width": 16}
POINTS = {"data.name": "world:ring", "adversarial.r1": 0.02, "adversarial.r2": 0.02}
GPT2 = TOKENS | {"model.name": "gpt2", "model.layers": 2, "model.gpt2.positions": 16}
IMAGES = {"data.name": "digits", "data.batch_size": 32, "adversarial.spectral_norm": True, "model.dcgan.latent": 16}
CASES = {
    "likelihood": TOKENS | {"likelihood.label_smoothing": 0.1, "likelihood.z_loss": 1e-3},
    "likelihood, transformer": TRANSFORMER,
    "likelihood, gpt2": GPT2,
    "scheduled sampling": TOKENS | SAMPLING,
    "scheduled sampling, exact": TRANSFORMER | EXACT,
    "adversarial, tokens": TOKEN_GAME,
    "adversarial, tokens, split": TOKEN_GAME | {"adversarial.baseline": "moving_average", "seed": 3},
    "adversarial, points": GAME | POINTS,
    "adversarial, images": GAME | IMAGES,
    "cooperative": TOKENS | {"objective.name": "cooperative", "mediator.width": 16},
    "divergence": TOKENS | {"objective.name": "divergence", "data.name": "world:table"},
}
NETWORKS = {"adversarial, points": ("mlp", 32), "adversarial, images": ("dcgan", 8)}
WHOLE = ("adversarial, tokens", "divergence")  # their losses are no sums over examples
# Of models with positions side by side, which mesh.sequence may split.
SIDE_BY_SIDE = ("likelihood, transformer", "likelihood, gpt2", "scheduled sampling, exact")

CHUNKS = {f"model.{family}.{what}_chunk": 2 for family in ("transformer", "gpt2") for what in ("attention", "logits")}
LAYOUTS = {
    "one": {},
    "data=8": {"mesh.data": 8},
    "fsdp=8": {"mesh.fsdp": 8},
    "tensor=4": {"mesh.tensor": 4},
    "all axes": {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2},
    "microbatches=2": {"training.microbatches": 2},
    "microbatches=4": {"training.microbatches": 4},
    "shard_map": {"mesh.data": 8, "training.mode": "shard_map"},
    "shard_map, all axes": {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "training.mode": "shard_map"},
    "sequence": {"mesh.data": 2, "mesh.sequence": 4},
    "sequence, by chunks": {"mesh.fsdp": 2, "mesh.sequence": 2, "mesh.tensor": 2} | CHUNKS,
    "sequence=4": {"mesh.sequence": 4} | CHUNKS,
    "data=4": {"mesh.data": 4},
    "fsdp=4": {"mesh.fsdp": 4},
    "fsdp=2, tensor=2": {"mesh.fsdp": 2, "mesh.tensor": 2},
}
DECAY = 0.9  # of Adam's first moment
# The outputs of every kernel: of linear maps and of convolutions.
TENSOR_RULES = tuple((r"kernel$", (*(None,) * inner, "tensor")) for inner in (1, 3))

# How far another layout may be from one device; tests/test_parity.py says what was measured.
LIMITS = {
    "step 0": 4e-6,  # losses, nats
    "10 steps": 1e-5,
    "curve": 2e-4,  # all losses, relative to the player's largest: those of score functions cross 0
    "again": 4e-6,  # losses of one step from the same state, nats, relative where they are above 1
    "gradient": 1e-5,  # of every leaf at step 0, |g' - g| / |g|
    "gradients": 1e-5,  # of every leaf after one step from the same state, |g| being at least 1 % of the player's
    "norm": 1e-4,  # of the whole gradient, relative
    "facts": 0,  # how many are not equal: rows of the data, what losses are weighed by, learning rates, coins
    "count": 0,  # of steps that a state has not counted
}


def config(case: str, layout: str, dropout: float = 0.0) -> ConfigDict:
    """The config of a toy run of 100 steps, or their first, on a layout."""
    toy = base.get_config()
    changes = {"steps": 100, "mesh.data": 1, "training.ema_decay": 0.9, "optimizer.b1": DECAY}
    changes |= {"optimizer.learning_rate": 3e-3, "optimizer.weight_decay": 0.01} | CASES[case] | LAYOUTS[layout]
    if case in NETWORKS:
        name, width = NETWORKS[case]
        changes |= {f"{player}.name": name for player in ("model", "critic")}
        changes |= {f"{player}.width": width for player in ("model", "critic")}
    changes |= {f"{player}.dropout": dropout for player in ("model", "critic", "mediator")}
    toy.update_from_flattened_dict(changes)
    if toy.mesh.tensor > 1:
        toy.mesh.rules = base.TRANSFORMER_RULES if case in SIDE_BY_SIDE else TENSOR_RULES
    return toy


def build(config: ConfigDict, workdir: Path = Path()) -> Run:
    """A run on as many of all devices as its layout takes."""
    count, size = math.prod(config.mesh[axis] for axis in sharding.AXES), config.data.batch_size
    mesh = sharding.make_mesh(config.mesh, size, config.training.microbatches, jax.devices()[:count])
    data = building.build(config, None, sharding.local_rows(mesh, size))
    return Run(config, workdir, program.build(config, data.spec, mesh), data, [])


class Trace(NamedTuple):
    """What steps leave behind, on the host: sums and a digest of the batch of each, and the states before and after
    some of them."""

    sums: list[dict[str, Sum]]
    batches: list[str]
    before: dict[int, TrainState]
    after: dict[int, TrainState]


def trace(
    run: Run, steps: Iterable[int], keep: Container[int] = (), starts: Mapping[int, TrainState] = MappingProxyType({})
) -> Trace:
    """Takes the steps one after another from the seed, or from the state that `starts` has for a step."""
    steps_taken, places = Trace([], [], {}, {}), jax.tree.map(lambda leaf: leaf.sharding, run.program.state)
    state = None if starts else run.program.init()
    for step in steps:
        state = jax.device_put(starts[step], places) if step in starts else state
        if step in keep:
            steps_taken.before[step] = host(state)
        batch = sharding.put(run.data.train.batch(step), run.program.mesh, run.config.data.batch_size)
        state, sums = run.program.update(state, batch)
        steps_taken.sums.append(jax.tree.map(float, sums))
        steps_taken.batches.append(digest(host(batch)))
        if step in keep:
            steps_taken.after[step] = host(state)
    return steps_taken


def host(tree: Any) -> Any:
    """Whole arrays of NumPy, whichever processes hold them."""
    return multihost_utils.process_allgather(tree, tiled=True) if jax.process_count() > 1 else jax.device_get(tree)


def digest(tree: Any) -> str:
    """sha256 over all leaves in tree order."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        sha.update(np.asarray(leaf).tobytes())
    return sha.hexdigest()


def means(sums: Iterable[Mapping[str, Sum]], ending: str) -> np.ndarray:
    """(steps, names) of the metrics whose names end so."""
    return np.asarray([[mean(named[name]) for name in named if name.endswith(ending)] for named in sums])


def weights(trace: Trace) -> list[float]:
    """What every loss was weighed by: tokens, or examples."""
    return [named[name].weight for named in trace.sums for name in named if name.endswith("/loss")]


def gradients(trace: Trace, step: int) -> dict[str, list[np.ndarray]]:
    """The clipped gradient of every player's leaves, out of Adam's first moment: m' = b m + (1 - b) g."""
    before, after = trace.before[step].opt_state, trace.after[step].opt_state

    def moments(opt_state: Any) -> list[np.ndarray]:
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(optax.tree.get(opt_state, "mu"))]

    pairs = {player: zip(moments(before[player]), moments(after[player]), strict=True) for player in before}
    return {player: [(new - DECAY * old) / (1 - DECAY) for old, new in pair] for player, pair in pairs.items()}


def apart_by_leaf(control: Trace, other: Trace, step: int, least: float) -> float:
    """The largest |g' - g| / |g| of any leaf, |g| being at least a share of its player's."""
    distances = [0.0]
    one, two = gradients(control, step), gradients(other, step)
    for player, leaves in one.items():
        whole = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in leaves))
        for ours, theirs in zip(leaves, two[player], strict=True):
            if not np.array_equal(ours, theirs):
                floor = (least if ours.any() else 0.01) * whole  # what cancels to 0 has no size of its own
                distances.append(np.linalg.norm(theirs - ours) / max(np.linalg.norm(ours), floor))
    return max(distances)


def curves(control: Trace, other: Trace) -> dict[str, float]:
    """How far two runs from the same seed are apart, by the names of LIMITS."""
    one, two = (means(trace.sums, "/loss") for trace in (control, other))
    gap = np.abs(two - one)
    facts = [
        control.batches == other.batches,
        weights(control) == weights(other),
        np.array_equal(*(means(trace.sums, "/learning_rate") for trace in (control, other))),
        np.allclose(*(means(trace.sums, "/keep_true") for trace in (control, other)), rtol=1e-6, atol=0),
    ]
    distances = {"step 0": gap[0].max(), "10 steps": gap[:10].max(), "curve": (gap.max(0) / np.abs(one).max(0)).max()}
    return distances | {"facts": facts.count(False)}


def single_steps(control: Trace, other: Trace) -> dict[str, float]:
    """How far the steps of `other`, each from a state of the control, lead from the control's own."""
    sums = [control.sums[step] for step in other.before]
    losses, norms = ([means(steps, ending) for steps in (sums, other.sums)] for ending in ("/loss", "/grad_norm"))
    return {
        "again": (np.abs(losses[1] - losses[0]) / np.maximum(np.abs(losses[0]), 1)).max(),
        "gradient": apart_by_leaf(control, other, 0, least=0.0),
        "gradients": max(apart_by_leaf(control, other, step, least=0.01) for step in other.before),
        "norm": np.abs(norms[1] / norms[0] - 1).max(),
        "count": sum(int(other.after[step].step != step + 1) for step in other.before),
    }


def exceeded(apart: Mapping[str, float]) -> dict[str, float]:
    """What is beyond its limit, or is no number."""
    return {name: value for name, value in apart.items() if not value <= LIMITS[name]}


def write(path: Path, trace: Trace) -> None:
    """As JSON, with digests for states."""
    after = {step: digest(state) for step, state in trace.after.items()}
    files.write_json(path, {"sums": trace.sums, "batches": trace.batches, "after": after})


def read(path: Path) -> Trace:
    """What was written."""
    written = files.read_json(path)
    sums = [{name: Sum(*value) for name, value in named.items()} for named in written["sums"]]
    return Trace(sums, written["batches"], {}, {int(step): state for step, state in written["after"].items()})


def main(case: str, layout: str, steps: int, out: Path, address: str, processes: int, index: int) -> None:
    peers.join(address, processes, index)
    sharding.SMALL = 1  # split even the small arrays of toys
    done = trace(build(config(case, layout)), range(steps), keep=(steps - 1,))
    if index == 0:
        write(out, done)


if __name__ == "__main__":
    case, layout, steps, out, address, processes, index = sys.argv[1:]
    main(case, layout, int(steps), Path(out), address, int(processes), int(index))
