"""A teacher asked once: what is written down is learned from as from the teacher itself, or refused in one line."""

import json
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import players, sharding, train
from gentrain.datasets import build as building
from gentrain.datasets import taught
from gentrain.errors import ConfigError, DataError, Stopped
from gentrain.objectives import lessons
from gentrain.options import tree
from launch import teach
from tests.helpers import ROOT, StopAt, assert_trees_close, environment

SMALL = {"data.length": 10, "data.batch_size": 8, "data.text.unit": "line", "steps": 6, "log.loggers": (),
         "evaluate.evaluators": (), "model.width": 8, "optimizer.learning_rate": 0.01}  # fmt: skip
TOP = {"objective.real_prior": 1.0, "distillation.estimator": "tail_bucket", "distillation.top_k": 4}


def config_of(sources, **overrides):
    config = base.get_config()
    config.data.name = "mixture"
    config.data.mixture.sources = tuple((f"text:{source}", weight, 0) for source, weight in sources)
    config.update_from_flattened_dict(SMALL | overrides)
    return config


def student_of(world, **overrides):
    """A config of distillation from the teacher of this world."""
    distilled = {"objective.name": "distillation", "distillation.prefixes": "data", "objective.real_prior": 0.4}
    config = config_of(world.sources, **(distilled | overrides))
    config.teacher.name, config.teacher.width = "transformer", 16
    config.teacher.transformer.heads = config.teacher.transformer.kv_heads = 2
    config.init_from = (("teacher", str(world.teacher), "generator"),)
    return config


def ask(config, out, keep="hidden", stop=None):
    """`python -m launch.teach`, as a function of a config."""
    flags = SimpleNamespace(workdir=None)
    command = SimpleNamespace(config=config, flags=flags, workdir=Path("unused"))
    out.mkdir(exist_ok=True)
    teach.teach(command, out, teach.top_k_of(keep), stop or StopAt())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two texts, a teacher that has read them a little, and what it says of all of their rows."""
    root, random = tmp_path_factory.mktemp("taught"), np.random.default_rng(0)
    sources = []
    for name, count, weight in (("one", 60, 2.0), ("two", 33, 1.0)):
        lines = ("".join(random.choice(list("abcde"), random.integers(1, 16))) for _ in range(count))
        (root / f"{name}.txt").write_text("\n".join(lines))
        sources.append((root / f"{name}.txt", weight))
    with pytest.MonkeyPatch.context() as patch, jax.sharding.use_abstract_mesh(sharding.NO_MESH):
        patch.setattr(sharding, "make_mesh", partial(sharding.make_mesh, devices=jax.devices()[:1]))
        patch.setattr(taught, "CHUNK", 1500)
        config = config_of(sources, **{"model.name": "transformer", "model.width": 16})
        config.model.transformer.heads = config.model.transformer.kv_heads = 2
        train.train(config, root / "teacher", StopAt())
        world = SimpleNamespace(root=root, sources=sources, teacher=root / "teacher")
        world.vocab = building.build(config, None).spec.vocab
        for keep in ("hidden", "top_k:4", f"top_k:{world.vocab}"):
            ask(student_of(world), root / keep.replace(":", "_"), keep)
    world.hidden, world.top, world.all = (root / name for name in ("hidden", "top_k_4", f"top_k_{world.vocab}"))
    return world


def spoiled(given):
    """The teacher without all but its last layer: who asks it gets no numbers."""
    body = {name: jax.tree.map(lambda x: x * jnp.nan, given[name]) for name in given}
    return {name: body[name] | {"output": given[name]["output"]} for name in given}


def loss_and_slope(config, workdir, step=3):
    """Of a batch, with the student of the seed and the teacher of init_from."""
    run = train.build(config, workdir)
    state = run.program.init()
    given, _, _ = players.init_from(config, run.program, run.data, state, run.workdir)
    params = state.params | (spoiled(given) if config.data.taught else given)
    batch = sharding.put(run.data.train.batch(step), run.program.mesh, config.data.batch_size)

    def loss(generator):
        total, _ = run.program.objective.loss(
            "generator", params | {"generator": generator}, {}, batch, jax.random.key(1), 0
        )
        return total.total / total.weight

    return sharding.compile_on(run.program.mesh, jax.value_and_grad(loss))(params["generator"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("hidden", {"objective.real_prior": 0.4, "distillation.teacher_temperature": 1.3}),
        ("hidden", {"objective.real_prior": 0.0, "model.name": "transformer", "model.transformer.logits_chunk": 4,
                    "model.transformer.heads": 2, "model.transformer.kv_heads": 2, "distillation.likelihood": 0.3}),
        ("top", TOP),
        ("top", TOP | {"distillation.estimator": "renormalised", "distillation.student_temperature": 0.7,
                       "distillation.top_k": 3}),
        ("all", TOP | {"distillation.top_k": 0}),
    ],
    ids=str,
)  # fmt: skip
def test_what_was_written_down_teaches_the_same(world, kind, options, run_on_one_device):
    options = {**options, **({"distillation.top_k": world.vocab} if kind == "all" else {})}
    online = loss_and_slope(student_of(world, **options), world.root / "run")
    offline = loss_and_slope(
        student_of(world, **options, **{"data.taught": str(getattr(world, kind))}), world.root / "run"
    )
    np.testing.assert_allclose(offline[0], online[0], rtol=1e-6)
    assert_trees_close(offline[1], online[1], rtol=1e-5, atol=1e-6)
    assert abs(float(online[0])) > 1e-3


def test_every_row_has_its_own_words_whatever_the_order(world, run_on_one_device):
    """The teacher's words beside a row of any batch are those that it says of that row alone."""
    data = building.build(student_of(world, **TOP, **{"data.taught": str(world.all)}), None)
    run = train.build(student_of(world), world.root / "run")
    given, _, _ = players.init_from(run.config, run.program, run.data, run.program.init(), run.workdir)
    for step in (0, 5, 11):
        batch = {name: jnp.asarray(array) for name, array in data.train.batch(step).items()}
        said = run.program.objective.teach(given, {"tokens": batch["tokens"]}, world.vocab)
        laws = [
            jnp.put_along_axis(
                jnp.zeros_like(one[lessons.LOG_PROBS]), one[lessons.TOKENS], one[lessons.LOG_PROBS], -1, inplace=False
            )
            for one in (batch, said)
        ]
        np.testing.assert_allclose(*laws, atol=1e-5)
        np.testing.assert_allclose(jnp.exp(laws[0]).sum(-1), 1, atol=1e-5)


def test_no_teacher_is_loaded_for_its_likeliest_tokens(world, tmp_path, run_on_one_device):
    """A run of it ends in the same bits whether it was interrupted or not, and the folder is part of what it is."""
    config = student_of(world, **TOP, **{"data.taught": str(world.top), "init_from": ""})
    train.train(config, tmp_path / "whole", StopAt())
    with pytest.raises(Stopped):
        train.train(config, tmp_path / "cut", StopAt(3))
    train.train(config, tmp_path / "cut", StopAt())
    runs = [train.build(config, tmp_path / name) for name in ("whole", "cut")]
    one, other = (train.restored(run)[0] for run in runs)
    assert_trees_close(one, other)
    assert not one.frozen and set(one.params) == {"generator"}
    spare = student_of(world, **TOP, **{"data.taught": str(world.top)})
    train.train(spare, tmp_path / "spare", StopAt())  # init_from may stay as it was for the teacher
    assert_trees_close(train.restored(train.build(spare, tmp_path / "spare"))[0], one)
    config.data.taught = str(shutil.copytree(world.top, tmp_path / "copy"))
    with pytest.raises(ConfigError, match="another config"):
        train.train(config, tmp_path / "cut", StopAt())
    note = json.loads((tmp_path / "copy" / taught.NOTE).read_text())
    note["asked"]["teacher"]["step"] += 1  # as another teacher's would be
    (tmp_path / "copy" / taught.NOTE).write_text(json.dumps(note))
    with pytest.raises(ConfigError, match="data changed since step 6: taught"):
        train.restored(train.build(config, tmp_path / "cut"))


def test_a_sample_needs_neither_the_folder_nor_the_teacher(world, tmp_path, run_on_one_device):
    import gentrain

    copy = shutil.copytree(world.top, tmp_path / "copy")
    config = student_of(world, **TOP, **{"data.taught": str(copy)})
    train.train(config, tmp_path / "run", StopAt())
    shutil.rmtree(copy)
    assert len(gentrain.load(tmp_path / "run").sample(2)) == 2


@pytest.mark.parametrize(
    ("kind", "options", "error", "text"),
    [
        ("nowhere", {}, ConfigError, "there is no taught.json: expected a folder that `python -m launch.teach` wrote"),
        ("hidden", {"data.length": 9}, ConfigError, "was written for rows=.*, and the data have"),
        ("hidden", {"data.layout": "pack"}, ConfigError, "was written for rows=.*, and the data have"),
        ("hidden", {"data.tokenizer": "bytes"}, ConfigError, "is of another tokenizer than the run's"),
        ("top", {"distillation.top_k": 5}, ConfigError, "top_k=5: expected at most 4: data.taught has the teacher's 4"),
        (
            "top",
            {"distillation.estimator": "exact", "distillation.top_k": 0},
            ConfigError,
            "expected one of tail_bucket",
        ),
        ("top", {"distillation.teacher_temperature": 2.0}, ConfigError, "teacher_temperature=2: expected 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(world, kind, options, error, text, tmp_path, run_on_one_device):
    folder = getattr(world, kind, world.root / kind)
    config = student_of(world, **(TOP | options), **{"data.taught": str(folder)})
    with pytest.raises(error, match=text) as found:
        train.build(config, tmp_path / "run")
    assert "\n" not in str(found.value)


def test_other_data_and_another_teacher_are_refused(world, tmp_path, run_on_one_device):
    other = student_of(world, **{"data.taught": str(world.hidden)})
    other.data.mixture.sources = other.data.mixture.sources[::-1]
    with pytest.raises(ConfigError, match=r"was written for rows=.*, and the data have"):
        train.build(other, tmp_path / "run")
    (tmp_path / "lines.txt").write_text("abcde\nedcba\n" * 30)
    other.data.mixture.sources = ((f"text:{tmp_path}/lines.txt", 1.0, 0), other.data.mixture.sources[0])
    with pytest.raises(ConfigError, match=r"is of another text:.*/lines.txt than the run's"):
        train.build(other, tmp_path / "run")
    config = student_of(world, **{"data.taught": str(world.hidden)})
    shutil.copytree(world.teacher, tmp_path / "teacher")
    more = config_of(world.sources, **{"model.name": "transformer", "model.width": 16, "steps": 7})
    more.model.transformer.heads = more.model.transformer.kv_heads = 2
    train.train(more, tmp_path / "teacher", StopAt())
    config.init_from = (("teacher", str(tmp_path / "teacher"), "generator"),)
    with pytest.raises(
        ConfigError, match=r"taught is what .* at step 6 says, and init_from gives 'teacher' .* at step 7"
    ):
        train.train(config, tmp_path / "run", StopAt())


@pytest.mark.parametrize("where", [0, -1], ids=["first byte", "last byte"])
def test_damage_is_named_before_anything_and_written_anew(world, tmp_path, where, monkeypatch, run_on_one_device):
    monkeypatch.setattr(taught, "CHUNK", 1500)
    copy = shutil.copytree(world.top, tmp_path / "copy")
    content = bytearray((copy / lessons.TOKENS).read_bytes())
    content[where] ^= 1
    (copy / lessons.TOKENS).write_bytes(content)
    config = student_of(world, **TOP, **{"data.taught": str(copy)})
    with pytest.raises(
        DataError, match=r"is damaged or not written from row \d+ of 1\d\d on; the same `python -m launch"
    ):
        train.build(config, tmp_path / "run")
    ask(student_of(world), copy, "top_k:4")
    for name in (taught.NOTE, lessons.TOKENS, lessons.LOG_PROBS):
        assert (copy / name).read_bytes() == (world.top / name).read_bytes()
    train.build(config, tmp_path / "run")
    (copy / taught.NOTE).write_text((copy / taught.NOTE).read_text()[:-20])
    with pytest.raises(DataError, match="is damaged: remove"):
        train.build(config, tmp_path / "run")


class Interrupt(StopAt):
    """A signal that comes after some looks."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0

    @requested.setter
    def requested(self, value):
        pass


def test_it_goes_on_where_it_was_stopped(world, tmp_path, monkeypatch, run_on_one_device):
    monkeypatch.setattr(taught, "CHUNK", 1500)
    stops = 0
    for _ in range(20):
        try:
            ask(student_of(world), tmp_path / "out", "top_k:4", Interrupt(7))
            break
        except Stopped as stopped:
            stops += 1
            assert "the same command goes on there" in str(stopped)
    assert stops >= 1
    for name in (taught.NOTE, lessons.TOKENS, lessons.LOG_PROBS):
        assert (tmp_path / "out" / name).read_bytes() == (world.top / name).read_bytes()
    with pytest.raises(ConfigError, match="was begun with other arrays: remove it, or choose another"):
        ask(student_of(world), tmp_path / "out", "top_k:3")


def test_a_kill_of_the_command_costs_a_chunk_at_most(tmp_path, run_on_one_device):
    """The command itself: killed while it writes, started again, and the same as one that never was."""
    random = np.random.default_rng(0)
    (tmp_path / "lines.txt").write_text("\n".join("".join(random.choice(list("abcde"), 9)) for _ in range(40_000)))
    config = config_of([(tmp_path / "lines.txt", 1.0)], **{"data.batch_size": 256, "steps": 1})
    train.train(config, tmp_path / "teacher", StopAt())
    config.objective.name, config.teacher.width, config.log.loggers = "distillation", 8, ("tensorboard",)
    config.init_from = (("teacher", str(tmp_path / "teacher"), "generator"),)
    ask(config, tmp_path / "whole", "top_k:6")
    (tmp_path / "config.py").write_text(
        "from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n"
        f"    config.update_from_flattened_dict({tree.flatten(config)!r})\n    return config\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "launch.teach", f"--config={tmp_path}/config.py", "--keep=top_k:6", f"--out={out}"]
    child = {"cwd": ROOT, "env": environment(), "stderr": subprocess.PIPE, "text": True}
    process, deadline = subprocess.Popen(command, **child), time.monotonic() + 100
    while not (out / taught.NOTE).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert "reading mixture" in process.communicate()[1]
    found = json.loads((out / taught.NOTE).read_text())
    assert 0 < (rows := len(found["sums"]) * found["chunk"]) < found["rows"][0]
    again = subprocess.run(command, timeout=120, **child)
    assert again.returncode == 0 and f"{rows:,} rows are there" in again.stderr
    for name in (taught.NOTE, lessons.TOKENS, lessons.LOG_PROBS):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--keep=top_p:3"], "--keep=top_p:3: expected hidden, or top_k:K with K tokens, as top_k:64"),
        (["--keep=top_k:0"], "--keep=top_k:0: expected hidden"),
        (["--keep=top_k:500"], "--keep=top_k:500: expected at most the"),
        (["--config.objective.name=likelihood"], "objective.name='likelihood' has no teacher"),
        (["--config.data.name=world:hmm"], "expected a data.name that has them"),
        ([], "player 'teacher' is frozen: expected init_from to say where it is from"),
    ],
    ids=str,
)
def test_the_command_tells_a_mistake_in_one_line(arguments, text, tmp_path, capsys, run_on_one_device):
    common = [f"--config={ROOT}/configs/base.py", f"--out={tmp_path}/out"]
    if not any("objective.name" in argument for argument in arguments):
        common.append("--config.objective.name=distillation")
    assert teach.main([*common, *arguments]) == 2
    assert text in capsys.readouterr().err.splitlines()[-1]
