"""Adapters learn alone: what they adapt stays as it was taken, is not saved, and goes out with them added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gentrain
from gentrain import adapters, program, sharding, train
from gentrain.datasets.build import build
from gentrain.errors import CheckpointError, ConfigError
from gentrain.options.fit import fit
from launch import export
from tests.helpers import StopAt, assert_trees_close
from tests.published.helpers import TEXT, change, make_folder
from tests.published.test_folders import restored


@pytest.fixture
def lora(config, tmp_path, run_on_one_device, monkeypatch):
    """A config that fine-tunes the published model beside it."""
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("\n".join(f"{TEXT.split(chr(10))[0]} {n}" for n in range(60)))
    config.init_from = f"hf:{make_folder(tmp_path / 'model', 'qwen2')}"
    config.data.name, config.data.text.unit = f"text:{tmp_path / 'a.txt'}", "line"
    config.data.batch_size, config.data.length, config.steps = 4, 24, 3
    config.model.transformer.lora_rank, config.log.loggers = 2, ()
    config.evaluate.evaluators = ("likelihood",)
    fit(config)
    return config


def test_a_tree_comes_apart_and_together_again():
    tree = {"a": {"b": 1, "b_adapter": {"up": 2, "down": 3}}, "c": 4}
    learned, rest = adapters.split(tree)
    assert learned == {"a": {"b_adapter": {"up": 2, "down": 3}}} and rest == {"a": {"b": 1}, "c": 4}
    assert adapters.join(rest, learned) == adapters.join(learned, rest) == tree
    assert adapters.split(rest) == (rest, {})
    assert adapters.join({"a": {"b": 1}}, {"a": {"b": 2}}) == {"a": {"b": 2}}


def test_at_the_start_they_add_nothing_and_a_step_moves_them_alone(lora, tmp_path):
    built = program.build(lora, build(lora, None).spec)
    learning, kept = (
        [sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(part)]
        for part in (built.state.params, built.state.frozen)
    )
    assert len(learning) == 14 and all("_adapter/" in path for path in learning)
    assert not any("_adapter" in path for path in kept)
    held = jax.tree.leaves(built.state.opt_state)
    assert sum(leaf.size for leaf in held) < 3 * sum(leaf.size for leaf in jax.tree.leaves(built.state.params))
    train.train(lora, tmp_path / "run", StopAt())
    model, base = restored(tmp_path / "model")
    run = gentrain.load(tmp_path / "run")
    learned, rest = adapters.split(run.params)
    assert_trees_close(rest, base)
    assert all(np.any(adapter["up"]) for adapter in learned["layers"].values())
    inputs = jnp.arange(2, 14, dtype=jnp.int32)[None]
    without = jax.tree.map(np.zeros_like, learned)
    np.testing.assert_array_equal(run.model.apply(adapters.join(rest, without), inputs), model.apply(base, inputs))
    assert np.abs(run.model.apply(run.params, inputs) - model.apply(base, inputs)).max() > 1e-4


def test_they_go_out_added_to_what_they_adapt(lora, tmp_path):
    train.train(lora, tmp_path / "run", StopAt())
    assert export.main([f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}"]) == 0
    run, out = gentrain.load(tmp_path / "run"), gentrain.load(f"hf:{tmp_path / 'out'}")
    np.testing.assert_allclose(out.log_prob(["sound and fury"]), run.log_prob(["sound and fury"]), rtol=1e-5)
    assert not adapters.find(out.params)


def test_a_run_goes_on_with_the_base_that_it_started_with(lora, tmp_path):
    straight = lora.copy_and_resolve_references()
    train.train(straight, tmp_path / "straight", StopAt())
    with pytest.raises(gentrain.errors.Stopped):
        train.train(lora, tmp_path / "cut", StopAt(2))
    train.train(lora, tmp_path / "cut", StopAt())
    one, other = (gentrain.load(tmp_path / name).params for name in ("straight", "cut"))
    assert_trees_close(one, other)
    change(tmp_path / "model", model__embed_tokens__weight=np.ones((320, 32), np.float32))
    with pytest.raises(CheckpointError, match="is not the model that 'generator' started from"):
        gentrain.load(tmp_path / "cut")


def test_they_need_something_to_adapt_and_maps_that_there_are(lora, tmp_path):
    lora.model.transformer.lora_targets = ("query", "qkv")
    with pytest.raises(ConfigError, match=r"lora_targets=\('query', 'qkv'\): expected names of query, key"):
        gentrain.options.check.validate(lora)
    lora.model.transformer.lora_targets, lora.init_from, lora.data.tokenizer = ("query",), "", "chars"
    with pytest.raises(
        ConfigError, match="generator learns adapters alone: expected init_from to say where it is from"
    ):
        train.train(lora, tmp_path / "run", StopAt())
