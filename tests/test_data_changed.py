"""What a run read is what it goes on with: changed data and other tokenizers are errors that name what changed."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from gentrain import train
from gentrain.datasets import tokenizers
from gentrain.errors import ConfigError, Stopped
from gentrain.look import look
from launch import cli
from tests.helpers import StopAt, assert_trees_close

ALLOWED = ("data",)


@pytest.fixture
def run_config(config, run_on_one_device, tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "a.txt", "abcdefgh")
    config.data.name, config.data.text.unit, config.data.valid_fraction = f"text:{tmp_path / 'a.txt'}", "line", 0.2
    config.steps, config.evaluate.evaluators, config.log.loggers = 6, (), ()
    return config


def write(file, letters, seed=0):
    draw = np.random.default_rng(seed)
    lines = ["".join(draw.choice(list(letters), 6)) for _ in range(200)]
    file.write_text("\n".join([letters, *lines]) + "\n")


def go(config, workdir, step, allow=()):
    with pytest.raises(Stopped):
        train.train(config, workdir, StopAt(step), allow=allow)
    return jax.device_get(train.restored(train.build(config, workdir), allow)[0])


def test_data_that_changed_end_a_resume_and_an_evaluation_with_exit_code_2(run_config, tmp_path, capsys):
    go(run_config, tmp_path / "run", 2)
    write(tmp_path / "a.txt", "abcdefgh", seed=1)
    expected = rf"^data changed since step 2: text:{tmp_path}/a\.txt; put it back, or go on with --allow=data$"
    for again in (
        lambda: train.train(run_config, tmp_path / "run", StopAt(4)),
        lambda: look(run_config, tmp_path / "run", "evaluate"),
    ):
        with pytest.raises(ConfigError, match=expected) as raised:
            again()
        assert raised.value.exit_code == 2
    with pytest.warns(UserWarning, match="data changed since step 2"):
        look(run_config, tmp_path / "run", "evaluate", ALLOWED)
    assert go(run_config, tmp_path / "run", 4, ALLOWED).step == 4
    assert "data changed since step 2: text:" in (out := capsys.readouterr().out + capsys.readouterr().err), out
    assert go(run_config, tmp_path / "run", 5).step == 5  # step 4 was trained on the new data


def test_data_that_were_only_touched_are_the_same(run_config, tmp_path):
    go(run_config, tmp_path / "run", 2)
    os.utime(tmp_path / "a.txt")
    assert go(run_config, tmp_path / "run", 3).step == 3


def test_a_tokenizer_that_changed_is_named_and_so_is_one_that_was_learned_anew(run_config, tmp_path):
    go(run_config, tmp_path / "run", 2)
    file = tmp_path / "run" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["alphabet"][:2] = reversed(content["alphabet"][:2])
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"^data changed since step 2: text:.*a\.txt, tokenizer; put it back"):
        train.train(run_config, tmp_path / "run", StopAt(4))
    file.unlink()
    assert go(run_config, tmp_path / "run", 3).step == 3
    file.unlink()
    write(tmp_path / "a.txt", "abcdefghij")  # more symbols: another shape of the parameters
    with pytest.raises(ConfigError, match=r"^data changed since step 3: text:.*a\.txt, tokenizer; put it back"):
        train.train(run_config, tmp_path / "run", StopAt(4))


def test_allow_takes_known_names_and_no_others():
    line = ["launch", "--config=configs/surnames_likelihood.py"]
    assert cli.parse(line).allow == () and cli.parse([*line, "--allow=data"]).allow == ("data",)
    with pytest.raises(ConfigError, match=r"^--allow=dat: expected names of data\b"):
        cli.parse([*line, "--allow=data,dat"])


@pytest.fixture
def parent(run_config, tmp_path):
    """A run on the letters a to h, at step 2."""
    go(run_config, tmp_path / "parent", 2)
    run_config.init_from = str(tmp_path / "parent")
    return tmp_path / "parent"


def test_ids_of_another_tokenizer_are_never_taken_for_ones_own(run_config, tmp_path, parent):
    for letters in ("stuvwxyz", "abcdefghij"):  # as many symbols, and more of them
        write(tmp_path / "a.txt", letters)
        with pytest.raises(ConfigError, match=r"tokens of .*parent stand for something else.*; copy its tok"):
            train.train(run_config, tmp_path / f"child-{letters}", StopAt(0))
    run_config.data.tokenizer = "bytes"
    with pytest.raises(ConfigError, match=r"tokens of .*parent stand for something else"):
        train.train(run_config, tmp_path / "child-bytes", StopAt(0))
    run_config.data.name = "world:table"
    with pytest.raises(ConfigError, match=r"tokens of .*parent stand for something else"):
        train.train(run_config, tmp_path / "child-world", StopAt(0))


def test_a_tokenizer_that_was_copied_is_the_same(run_config, tmp_path, parent):
    write(tmp_path / "a.txt", "abcdefg")
    (tmp_path / "child").mkdir()
    shutil.copy(parent / "tokenizer.json", tmp_path / "child")
    child = go(run_config, tmp_path / "child", 0)
    before = jax.device_get(restored_before(run_config, tmp_path, parent))
    assert_trees_close(child.params, before.params)


def restored_before(run_config, tmp_path, workdir):
    """The state of a run whose data are not what they were."""
    with pytest.warns(UserWarning, match="data changed"):
        return train.restored(train.build(run_config, workdir), ALLOWED)[0]


# As many symbols, and more of them.
@pytest.mark.parametrize(("model", "letters"), [("lstm", "hgfedcbz"), ("transformer", "defghijklm")])
def test_on_request_what_both_vocabularies_have_is_copied_by_symbol(run_config, tmp_path, model, letters):
    run_config.model.name = model
    before = go(run_config, tmp_path / "parent", 2).params["generator"]
    old = tokenizers.find(tmp_path / "parent").alphabet
    run_config.init_from, run_config.init_from_vocab = str(tmp_path / "parent"), "shared"
    write(tmp_path / "a.txt", letters)
    after = go(run_config, tmp_path / "child", 0).params["generator"]
    fresh = jax.device_get(train.build(run_config, tmp_path / "child").program.init()).params["generator"]
    new = tokenizers.find(tmp_path / "child").alphabet
    old_size, new_size, width = len(old) + 1, len(new) + 1, run_config.model.width
    pairs = [(old.index(symbol), token) for token, symbol in enumerate(new) if symbol in old] + [(len(old), len(new))]
    assert len(pairs) > 2 and new_size != width

    compared = 0
    for one, other, start in zip(*map(jax.tree.leaves, (before, after, fresh)), strict=True):
        axes = [axis for axis, size in enumerate(start.shape) if size in (new_size, new_size + 1)]
        if not axes:
            np.testing.assert_array_equal(one, other)
            continue
        (axis,) = axes
        one, other, start = (np.moveaxis(leaf, axis, 0) for leaf in (one, other, start))
        for there, here in pairs:
            np.testing.assert_array_equal(one[there], other[here])
        np.testing.assert_array_equal(one[old_size:], other[new_size:])
        for here in range(len(new)):
            if new[here] not in old:
                np.testing.assert_array_equal(other[here], start[here])
        compared += 1
    assert compared >= 1


def test_a_vocabulary_is_shared_only_by_tokenizers_of_one_kind_that_are_there(run_config, tmp_path, parent):
    run_config.init_from_vocab = "shared"
    write(tmp_path / "a.txt", "abcdefgx")
    (parent / "tokenizer.json").rename(parent / "elsewhere")
    with pytest.raises(ConfigError, match="has not its checkpoint's tokenizer"):
        train.train(run_config, tmp_path / "child", StopAt(0))
