"""Checkpoints: exact, verified, never skipped in silence, never back to step 0.

Run as a script, this file is one of the processes that its last tests start.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from orbax.checkpoint._src.path import atomicity

from gentrain.errors import CheckpointError, ConfigError
from gentrain.runtime import manifest
from gentrain.runtime.checkpoint import Checkpoints, restore_params
from gentrain.runtime.peers import free_port
from tests.helpers import ROOT

SAME_NAMES = {player: player for player in ("generator", "critic", "judge")}
UNVERIFIED = {"_CHECKPOINT_METADATA", "commit_success.txt"}  # written at the commit itself, and never needed


@flax.struct.dataclass
class State:
    step: Any
    params: Any
    opt_state: Any
    ema: Any
    carry: Any


def make_state(seed: int) -> State:
    rng = np.random.default_rng(seed)

    def normal(*shape: int, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    params = {
        "generator": {"embed": normal(8, 4), "out": {"kernel": normal(4, 8, dtype=jnp.bfloat16)}},
        "critic": {"layers": [normal(4), normal(2, 2)]},
    }
    opt_state = {"generator": (jnp.int32(seed), {"mu": normal(8, 4)}, None, ()), "critic": (jnp.uint8(seed),)}
    return State(jnp.int32(seed), params, opt_state, {}, {"baseline": normal(), "on": jnp.array([True, False])})


def abstract(tree: Any) -> Any:
    sharding = SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def assert_bitwise(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def restore(directory: Path, **options: Any) -> tuple[int, State, dict, list[str]]:
    """What comes back, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Checkpoints(directory, **options) as checkpoints:
            step, state, meta = checkpoints.restore(abstract(make_state(0)))
    return step, state, meta, [str(warning.message) for warning in caught]


def files(root: Path) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A directory with the steps 10 and 20, of make_state(10) and make_state(20)."""
    with Checkpoints(tmp_path / "run") as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, make_state(step), {"at": step})
    return tmp_path / "run"


def test_round_trip_is_bitwise(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two.parent)
    step, state, meta, caught = restore(Path("run"))  # a relative path
    assert (step, meta, caught) == (20, {"at": 20}, [])
    assert_bitwise(state, make_state(20))
    assert isinstance(state.params["critic"]["layers"], list) and isinstance(state.opt_state["critic"], tuple)


def test_no_checkpoint_is_none_and_read_only_makes_nothing(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        assert checkpoints.restore(abstract(make_state(0))) is None
        assert checkpoints.steps() == []
    assert not (tmp_path / "run").exists()
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.restore(abstract(make_state(0))) is None


def test_meta_is_copied_and_must_be_json(tmp_path: Path) -> None:
    meta = {"name": "a", "nested": {"x": [1]}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), meta)
        meta["nested"]["x"].append(2)
        with pytest.raises(TypeError, match="JSON"):
            checkpoints.save(2, make_state(2), {"bad": object()})
    assert restore(tmp_path)[2] == {"name": "a", "nested": {"x": [1]}}


def test_state_may_be_donated_after_save(tmp_path: Path) -> None:
    update = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 6):
            state = {"big": jnp.full((1 << 20,), step, jnp.float32)}
            target = abstract(state)
            checkpoints.save(step, state, {})
            for _ in range(3):
                state = update(state)
            restored = checkpoints.restore(target)
            assert restored is not None and restored[0] == step
            assert_bitwise(restored[1], {"big": np.full((1 << 20,), step, np.float32)})


def test_manifest_is_complete_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = {}
    commit = atomicity.AtomicRenameTemporaryPath.finalize

    async def finalize(self: Any) -> None:
        if self.get_final().parent == tmp_path:
            manifest = json.loads((Path(self.get()) / "manifest.json").read_text())
            present = files(Path(self.get())).keys() - UNVERIFIED - {"manifest.json"}
            complete[self.get_final().name] = manifest["files"].keys() == present and not self.get_final().exists()
        await commit(self)

    monkeypatch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", finalize)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(3), {})
    assert complete == {"3": True}


def test_every_bit_flip_is_found(two: Path) -> None:
    rng = random.Random(0)
    paths = files(two / "20")
    sizes = [path.stat().st_size for path in paths.values()]
    for _ in range(200):
        name = rng.choices(list(paths), sizes)[0]
        good = paths[name].read_bytes()
        damaged = bytearray(good)
        damaged[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        paths[name].write_bytes(damaged)
        step, state, meta, caught = restore(two, read_only=True)
        assert_bitwise(state, make_state(step))
        assert meta == {"at": step}
        assert step == (20 if name in UNVERIFIED else 10)
        assert step == 20 or (len(caught) == 1 and f"{name}" in caught[0] and str(two / "20") in caught[0])
        paths[name].write_bytes(good)
    assert restore(two)[0] == 20


@pytest.mark.parametrize("damage", ["halve", "empty", "delete", "garbage"])
def test_each_damaged_file_means_the_step_before(two: Path, damage: str) -> None:
    for name, path in files(two / "20").items():
        good = path.read_bytes()
        if damage == "delete":
            path.unlink()
        else:
            path.write_bytes({"halve": good[: len(good) // 2], "empty": b"", "garbage": b"\xff{" + good}[damage])
        step, state, _, caught = restore(two, read_only=True)
        assert_bitwise(state, make_state(step))
        assert step == (20 if name in UNVERIFIED else 10), name
        assert step == 20 or (len(caught) == 1 and name in caught[0] and "\n" not in caught[0])
        path.write_bytes(good)


def test_an_extra_file_is_damage(two: Path) -> None:
    (two / "20" / "state" / "d" / "extra").write_bytes(b"x")
    step, _, _, caught = restore(two)
    assert step == 10 and "state/d/extra: expected nothing" in caught[0]


def test_what_file_managers_leave_is_no_damage(two: Path) -> None:
    for folder in (two, two / "20", two / "20" / "state", two / "20" / "meta"):
        for name in (".DS_Store", "._state", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"x")
    (two / "backup" / "state").mkdir(parents=True)
    step, _, _, caught = restore(two)
    assert step == 20 and not caught
    (two / "20" / "state" / ".hidden").write_bytes(b"x")  # any other file is
    assert restore(two)[0] == 10


def test_all_damaged_is_an_error_and_changes_nothing(two: Path) -> None:
    for step in ("10", "20"):
        (two / step / "manifest.json").unlink()
    before = files(two).keys()
    everything = r"all 2 checkpoints are damaged .*20: .*10: .*"
    with Checkpoints(two) as checkpoints, pytest.raises(CheckpointError, match=everything) as raised:
        checkpoints.restore(abstract(make_state(0)))
    assert raised.value.exit_code == 5 and "\n" not in str(raised.value)
    assert files(two).keys() == before


def test_quarantine_lets_saving_go_on(two: Path) -> None:
    for attempt in ("quarantine-20", "quarantine-20+"):
        (two / "20" / "state" / "_METADATA").write_bytes(b"")
        found = pytest.warns(UserWarning, match="20: state/_METADATA.*back to step 10")
        with Checkpoints(two, keep_last=1) as checkpoints, found:
            step, _, _ = checkpoints.restore(abstract(make_state(0)))
            assert step == 10 and checkpoints.steps() == [10] and (two / attempt).is_dir()
            for step in (15, 20):
                checkpoints.save(step, make_state(step), {"at": step})
            checkpoints.wait()
            assert checkpoints.steps() == [10, 20]  # 10 is trusted
    assert_bitwise(restore(two)[1], make_state(20))


def test_the_trusted_step_stays_until_a_later_one_is_proved(tmp_path: Path) -> None:
    state = {"x": np.zeros(2)}
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        for step, proved, kept in ((10, (0, 5), [10]), (20, (0, 9), [10, 20]), (30, (26, 29), [10, 30]),
                                   (40, (26, 35), [30, 40]), (50, (26, 36), [30, 50])):  # fmt: skip
            checkpoints.trust(*proved)
            checkpoints.save(step, state, {})
            checkpoints.wait()
            assert checkpoints.steps() == kept
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:  # what was trusted is known after a restart
        assert checkpoints.restore(abstract(state))[0] == 50
        checkpoints.save(60, state, {})
        checkpoints.wait()
        assert checkpoints.steps() == [30, 60]
        checkpoints.put_aside(60)
        assert checkpoints.steps() == [30] and (tmp_path / "quarantine-60").is_dir()


def test_read_only_changes_nothing(two: Path) -> None:
    (two / "20" / "state" / "_METADATA").write_bytes(b"")
    (two / "30.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    before = sorted((path, path.stat().st_mtime_ns) for path in two.rglob("*"))
    assert restore(two, read_only=True)[0] == 10
    with Checkpoints(two, read_only=True) as checkpoints, pytest.raises(CheckpointError, match="read-only"):
        checkpoints.save(30, make_state(30), {})
    assert sorted((path, path.stat().st_mtime_ns) for path in two.rglob("*")) == before


def change(state: State, name: str) -> State:
    layers, generator = state.params["critic"]["layers"], state.params["generator"]
    match name:
        case "missing":
            generator = generator | {"bias": jnp.zeros(3)}
        case "extra":
            generator = {"out": generator["out"]}
        case "renamed":
            generator = {"table": generator["embed"], "out": generator["out"]}
        case "shape":
            layers = [jnp.zeros(5), layers[1]]
        case "dtype":
            generator = generator | {"out": {"kernel": jnp.zeros((4, 8), jnp.float32)}}
    return state.replace(params={"generator": generator, "critic": {"layers": layers}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "params/generator/bias: expected float32[3], found nothing"),
        ("extra", "params/generator/embed: expected nothing, found float32[8,4]"),
        ("renamed", "params/generator/table: expected float32[8,4], found nothing"),
        ("shape", "params/critic/layers/0: expected float32[5], found float32[4]"),
        ("dtype", "params/generator/out/kernel: expected float32[4,8], found bfloat16[4,8]"),
    ],
)
def test_another_structure_names_the_leaf(two: Path, name: str, message: str) -> None:
    other = change(make_state(0), name)
    with Checkpoints(two) as checkpoints, pytest.raises(CheckpointError) as raised:
        checkpoints.restore(abstract(other))
    assert message in str(raised.value) and str(two / "20") in str(raised.value)
    with pytest.raises(CheckpointError) as raised:
        restore_params(two, abstract(other.params), SAME_NAMES)
    assert message in str(raised.value)


def test_an_abstract_state_needs_shardings(two: Path) -> None:
    with Checkpoints(two) as checkpoints, pytest.raises(ValueError, match="sharding"):
        checkpoints.restore(jax.eval_shape(lambda: make_state(0)))


def test_paths_of_leaves_are_unique(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="same path"):
        checkpoints.save(1, {"a": {"b": jnp.zeros(1)}, "a/b": jnp.ones(1)}, {})


def test_restore_params(two: Path) -> None:
    params = make_state(20).params
    step, restored, digest = restore_params(two, abstract(params), SAME_NAMES)
    assert step == 20 and digest == json.loads((two / "20" / "manifest.json").read_text())["sha256"]
    assert_bitwise(restored, params)
    critic = {"critic": params["critic"]}
    assert_bitwise(restore_params(two, abstract(critic), SAME_NAMES)[1], critic)
    judge = {"judge": {"w": jnp.zeros(1)}}  # which the other run did not have
    assert_bitwise(restore_params(two, abstract(critic | judge), SAME_NAMES)[1], critic)
    with pytest.raises(CheckpointError, match=r"has the players \['critic', 'generator'\], not judge"):
        restore_params(two, abstract(judge), SAME_NAMES)
    with pytest.raises(CheckpointError, match=r"params/critic/extra: expected float32\[1\], found nothing"):
        restore_params(two, abstract({"critic": {**params["critic"], "extra": jnp.zeros(1)}}), SAME_NAMES)
    (two / "20" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="manifest.json"):
        step, restored, _ = restore_params(two, abstract(params), SAME_NAMES)
    assert step == 10 and (two / "20").is_dir()
    assert_bitwise(restored, make_state(10).params)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        restore_params(two / "nowhere", abstract(params), SAME_NAMES)
    assert not (two / "nowhere").exists()


def test_players_of_one_source_have_arrays_of_their_own(two: Path) -> None:
    critic = make_state(20).params["critic"]
    sources = {"critic": "critic", "judge": "critic"}
    _, restored, _ = restore_params(two, abstract({"critic": critic, "judge": critic}), sources)
    assert_bitwise(restored, {"critic": critic, "judge": critic})
    ones, others = (jax.tree.leaves(restored[player]) for player in sources)
    assert all(one is not other for one, other in zip(ones, others, strict=True))  # or none could be donated
    wrong = {"critic": {"layers": [jnp.zeros(5), jnp.zeros((2, 2))]}, "judge": critic}
    with pytest.raises(CheckpointError, match=r"params/critic/layers/0: expected float32\[5\], found float32\[4\]"):
        restore_params(two, abstract(wrong), sources)


def test_restore_params_under_another_name_and_at_a_step(two: Path) -> None:
    critic = make_state(20).params["critic"]
    step, restored, _ = restore_params(two, abstract({"judge": critic}), {"judge": "critic"}, step=10)
    assert step == 10
    assert_bitwise(restored, {"judge": make_state(10).params["critic"]})
    with pytest.raises(CheckpointError, match=r"has no step 15; there are: \[10, 20\]"):
        restore_params(two, abstract({"judge": critic}), {"judge": "critic"}, step=15)
    with pytest.raises(CheckpointError, match="not judge"):  # which may not be left out here
        restore_params(two, abstract({"critic": critic, "judge": critic}), SAME_NAMES, required=True)
    (two / "10" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"10: manifest\.json cannot be checked"):
        restore_params(two, abstract({"judge": critic}), {"judge": "critic"}, step=10)


def test_saving_is_never_skipped_in_silence(two: Path) -> None:
    before = files(two / "20")["manifest.json"].read_bytes()
    with Checkpoints(two) as checkpoints:
        checkpoints.save(20, make_state(0), {})  # there already
        with pytest.raises(CheckpointError, match="cannot save step 15, because it holds step 20"):
            checkpoints.save(15, make_state(15), {})
    assert files(two / "20")["manifest.json"].read_bytes() == before
    with pytest.raises(ConfigError, match="keep_last"):
        Checkpoints(two, keep_last=0)


def fail(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_failed_save_surfaces_once_and_hurts_no_other(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Checkpoints(two) as checkpoints:
        for surfaces in (checkpoints.wait, lambda: checkpoints.save(40, make_state(40), {})):
            with monkeypatch.context() as patch:
                patch.setattr(manifest, "fingerprints", fail)
                checkpoints.save(30, make_state(30), {})  # asynchronous: no error yet
                with pytest.raises(CheckpointError, match=r"30: not saved, OSError: .*No space left") as raised:
                    surfaces()
            assert "\n" not in str(raised.value)
            assert checkpoints.steps() == [10, 20]
        checkpoints.wait()
        checkpoints.save(40, make_state(40), {})
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20, 40]
    assert_bitwise(restore(two)[1], make_state(40))


def test_a_failed_save_surfaces_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "fingerprints", fail)
    with pytest.raises(CheckpointError, match="not saved"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
    with pytest.raises(KeyError), pytest.warns(UserWarning, match="not saved"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        raise KeyError("what ended the run stays the error")


def test_a_kill_before_the_commit_leaves_what_was(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", fail)
        with pytest.raises(CheckpointError), Checkpoints(two) as checkpoints:
            checkpoints.save(30, make_state(30), {})
    assert (two / "30.orbax-checkpoint-tmp").exists()
    with Checkpoints(two) as checkpoints:
        assert checkpoints.steps() == [10, 20]
        assert not (two / "30.orbax-checkpoint-tmp").exists()
        checkpoints.save(30, make_state(30), {})
    assert {path.name for path in two.iterdir()} == {"10", "20", "30"}


@pytest.mark.parametrize("events", [80, pytest.param(500, marks=pytest.mark.soak)])
def test_retention_over_saves_failures_and_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    rng = random.Random(1)
    state = {"x": jnp.zeros(2)}
    saved: list[int] = []
    kept: set[int] = set()
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=4)
    step = 0
    for event in rng.choices(["save", "fail", "restart"], [6, 1, 2], k=events):
        if event == "restart":
            checkpoints.close()
            checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=4)
            continue
        step += rng.randint(1, 3)
        with monkeypatch.context() as patch:
            if event == "fail":
                patch.setattr(manifest, "fingerprints", fail)
            checkpoints.save(step, state, {})
            try:
                checkpoints.wait()
                saved.append(step)
            except CheckpointError:
                assert event == "fail"
        if event == "save":
            kept = {s for s in saved if s % 4 == 0 or s in saved[-2:]} | {checkpoints.trusted}
        assert set(checkpoints.steps()) == kept
        assert not saved or checkpoints.trusted in saved
    assert len(saved) > 40
    checkpoints.close()


def forge(step: Path, state: Any, described: dict[str, Any] | None = None) -> None:
    """Puts another state, or another description, into a step, with a manifest that fits."""
    other = step.parent.parent / "other"
    with Checkpoints(other) as checkpoints:
        checkpoints.save(1, state, {})
    shutil.rmtree(step / "state")
    shutil.copytree(other / "1" / "state", step / "state")
    if described is not None:
        (step / "meta" / "metadata").write_text(json.dumps(described))
    manifest.write(step)
    assert not manifest.damage(step)


def with_leaf(leaf: Any) -> State:
    """make_state(20) with another critic."""
    state = make_state(20)
    return state.replace(params=state.params | {"critic": {"layers": [leaf, state.params["critic"]["layers"][1]]}})


def exchanged() -> jax.Array:
    """The same numbers in another order."""
    return make_state(20).params["critic"]["layers"][0][::-1]


@pytest.mark.parametrize(
    "leaf",
    [
        lambda: jnp.full(4, jnp.nan),
        lambda: jnp.zeros(4, jnp.int32),
        lambda: make_state(20).params["critic"]["layers"][0].astype(jnp.bfloat16),
        lambda: jnp.zeros(5),
        lambda: jnp.zeros((1 << 20, 1)),
        exchanged,
    ],
    ids=["nan", "integers", "bfloat16", "longer", "huge", "exchanged"],
)
def test_arrays_that_were_exchanged_together_with_their_manifest_are_not_restored(two: Path, leaf: Any) -> None:
    forge(two / "20", with_leaf(leaf()))
    refused = r"run/20: arrays are not as they were saved .*params/critic/layers/0: expected"
    for read in (lambda: restore(two), lambda: restore_params(two, abstract(make_state(0).params), SAME_NAMES)):
        with pytest.raises(CheckpointError, match=refused) as raised:
            read()
        assert raised.value.exit_code == 5 and "\n" not in str(raised.value)


def test_arrays_that_are_missing_from_a_step_are_not_made_up(two: Path) -> None:
    state = make_state(20)
    forge(two / "20", state.replace(params={"generator": state.params["generator"]}))
    with pytest.raises(CheckpointError, match=r"params/critic/layers/0: expected float32.4., found nothing"):
        restore(two)


@pytest.mark.parametrize("description", [{}, [], {"meta": {}, "leaves": {}}, {"meta": {}, "leaves": 1, "sums": 2}])
def test_a_step_that_describes_itself_otherwise_is_refused_in_one_line(two: Path, description: Any) -> None:
    forge(two / "20", make_state(20), description)
    with pytest.raises(CheckpointError, match=r"run/20: what it holds") as raised:
        restore(two)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "bfloat16", "float16", "float32", "float8_e4m3fn"])
def test_a_checksum_changes_with_any_one_element_and_not_with_its_mesh(dtype: str) -> None:
    values = np.arange(24).reshape(4, 6) % 2
    x = jnp.asarray(values, dtype)
    before = int(manifest.checksum(x))
    index = np.arange(24, dtype=np.uint64)
    bits = np.asarray(x).reshape(-1).view(f"u{x.dtype.itemsize}")
    assert before == int(np.sum(bits * (2 * index + 1)) % 2**32)
    for row, column in ((0, 0), (1, 5), (3, 2)):
        assert int(manifest.checksum(x.at[row, column].set(jnp.asarray(1 - values[row, column], dtype)))) != before
    for mesh in (mesh_of(data=4), mesh_of(data=2, fsdp=2)):
        assert int(manifest.checksum(put({"x": np.asarray(x)}, mesh)["x"])) == before


@pytest.mark.parametrize("target", ["/dev/zero", "manifest", "pipe"])
@pytest.mark.parametrize("name", ["manifest.json", "meta/metadata", "state/_METADATA", "extra"])
def test_what_is_no_regular_file_is_damage_and_is_not_read(two: Path, name: str, target: str) -> None:
    path = two / "20" / name
    path.unlink(missing_ok=True)
    if target == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target if target == "/dev/zero" else two / "10" / "manifest.json")
    step, _, _, caught = restore(two, read_only=True)
    assert step == 10 and len(caught) == 1 and name in caught[0]


def test_a_directory_that_is_something_else_holds_no_checkpoint(tmp_path: Path, two: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for directory in (tmp_path / "zero", tmp_path / "pipe", tmp_path / "zero" / "checkpoints"):
        with pytest.raises(CheckpointError, match="no checkpoint to start from"):
            restore_params(directory, abstract(make_state(0).params), SAME_NAMES)
    shutil.move(two / "20", tmp_path / "elsewhere")
    (two / "20").symlink_to(tmp_path / "elsewhere")
    assert restore(two, read_only=True)[0] == 10


def spawn(*arguments: Any) -> subprocess.Popen:
    """This file as a script, with two simulated devices."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-W", "error::UserWarning", __file__, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> None:
    try:
        output, _ = process.communicate(timeout=50)
    finally:
        process.kill()
    assert process.returncode == 0, output


def test_restore_on_another_mesh(tmp_path: Path) -> None:
    values = some_arrays()
    saved_on = {"a": mesh_of(data=8), "b": mesh_of(fsdp=4, tensor=2), "c": mesh_of(data=2, fsdp=2, tensor=2)}
    restored_on = [*saved_on.values(), mesh_of(tensor=2, fsdp=4), mesh_of(fsdp=4), mesh_of(data=2), mesh_of(data=1)]
    for name, mesh in saved_on.items():
        with Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save(1, put(values, mesh), {})
            for other in restored_on:
                target = targets(put(values, other))
                restored = checkpoints.restore(target)
                assert restored is not None
                assert_bitwise(restored[1], values)
                assert all(jax.tree.leaves(jax.tree.map(lambda x, t: x.sharding == t.sharding, restored[1], target)))


def test_two_processes(tmp_path: Path) -> None:
    port = free_port()
    for process in [spawn(tmp_path, port, index) for index in range(2)]:
        finish(process)


def put(tree: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Rows over the first axis of the mesh, columns over the last, where they divide."""

    def place(x: np.ndarray) -> jax.Array:
        axes = (mesh.axis_names[0], mesh.axis_names[-1] if len(mesh.axis_names) > 1 else None)
        spec = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, x.shape, strict=False)]
        return jax.make_array_from_callback(x.shape, NamedSharding(mesh, PartitionSpec(*spec)), lambda index: x[index])

    return jax.tree.map(place, tree)


def targets(tree: dict[str, jax.Array]) -> dict[str, jax.ShapeDtypeStruct]:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def mesh_of(**axes: int) -> jax.sharding.Mesh:
    count = int(np.prod(list(axes.values())))
    return jax.sharding.Mesh(np.asarray(jax.devices()[:count]).reshape(*axes.values()), tuple(axes))


def some_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 16, (8, 16), np.uint16).view(jnp.bfloat16.dtype)
    return {"w": rng.normal(size=(16, 8)).astype(np.float32), "b": bits, "n": rng.integers(0, 99, 3, np.int32)}


def processes(directory: Path, port: int, index: int) -> None:
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)
    state = put(some_arrays(), mesh_of(fsdp=4))
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state, {})
        checkpoints.wait()
        listed = json.loads((directory / "2" / "manifest.json").read_text())["files"]
        assert all(any(f"ocdbt.process_{i}/d/" in name for name in listed) for i in range(2)), listed
        jax.experimental.multihost_utils.sync_global_devices("listed")
        if index == 0:
            (directory / "2" / "state" / "_METADATA").write_bytes(b"")
        jax.experimental.multihost_utils.sync_global_devices("damaged")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            restored = checkpoints.restore(targets(state))
        assert restored is not None and restored[0] == 1 and checkpoints.steps() == [1]
        assert (len(caught) == 1) == (index == 0)
        jax.tree.map(lambda a, b: assert_bitwise(*(s.addressable_data(1) for s in (a, b))), restored[1], state)
        checkpoints.save(2, state, {})


if __name__ == "__main__":
    processes(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
