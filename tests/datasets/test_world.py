"""Worlds as data: a function of the step, fresh or from a fixed set, whoever reads it."""

import numpy as np
import pytest

from gentrain.datasets.build import build
from gentrain.worlds import oracle


@pytest.fixture
def world_config(config):
    config.data.name, config.data.batch_size, config.data.world.held_out = "world:markov", 8, 21
    return config


def test_rows_do_not_depend_on_who_reads_them(world_config):
    whole = build(world_config, None)
    for processes in (2, 4):
        parts = [build(world_config, None, np.arange(8)[index::processes]) for index in range(processes)]
        for step in (0, 3, 1000):
            together = np.empty_like(whole.train.batch(step)["tokens"])
            for index, part in enumerate(parts):
                together[index::processes] = part.train.batch(step)["tokens"]
            assert np.array_equal(together, whole.train.batch(step)["tokens"])


def test_fresh_examples_are_new_and_splits_apart(world_config):
    world_config.data.name, world_config.data.world.length, world_config.data.world.vocab = "world:markov", 12, 9
    world_config.data.world.concentration = 5.0
    data = build(world_config, None)
    rows = np.concatenate([data.train.batch(step)["tokens"] for step in range(40)])
    assert len(np.unique(rows, axis=0)) > 0.99 * len(rows)
    held = np.concatenate([data.split(name).batch(0)["tokens"] for name in ("valid", "test")])
    assert not {row.tobytes() for row in held} & {row.tobytes() for row in rows}


def test_a_fixed_set_is_visited_once_an_epoch_in_new_orders(world_config):
    world_config.data.name, world_config.data.world.examples = "world:gaussian", 24
    data = build(world_config, None)
    epochs = [np.concatenate([data.train.batch(3 * e + i)["points"] for i in range(3)]) for e in range(3)]
    for epoch in epochs[1:]:
        assert not np.array_equal(epoch, epochs[0])
        assert np.array_equal(np.unique(epoch, axis=0), np.unique(epochs[0], axis=0))
    assert len(np.unique(epochs[0], axis=0)) == 24


def test_held_out_rows_end_with_the_mask(world_config):
    split = build(world_config, None).split("test")
    masks = np.concatenate([split.batch(i)["mask"] for i in range(split.batches)])
    assert split.batches == 3 and masks.all(-1).sum() == 21 == masks.any(-1).sum()
    tokens, offsets = split.documents
    assert len(tokens) == split.tokens == 21 * 4 and len(offsets) == 22
    assert np.array_equal(tokens[:4], split.batch(0)["tokens"][0])
    taken = split.take(np.array([20, 0, 20]))
    assert np.array_equal(taken["tokens"], tokens.reshape(21, 4)[[20, 0, 20]]) and taken["mask"].all()


@pytest.mark.parametrize("name", ["table", "hmm", "ring", "bimodal"])
def test_batches_have_the_shapes_the_program_is_compiled_for(world_config, name):
    world_config.data.name = f"world:{name}"
    data = build(world_config, None)
    for batch in (data.train.batch(2), data.split("valid").batch(2)):
        assert {k: (v.shape, v.dtype) for k, v in batch.items()} == data.spec.batch_shapes(8)


def test_the_digest_of_a_world_is_that_of_the_file_of_its_weights(world_config, tmp_path):
    digests = []
    for seed, name in ((0, "a"), (0, "b"), (1, "b")):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **oracle.random_weights(np.random.default_rng(seed), vocab=5, width=3))
        world_config.data.name, world_config.data.world.path = "world:oracle", str(path)
        digests.append(build(world_config, None).summary["digests"]["world:oracle"])
    assert digests[0] == digests[1] != digests[2]
