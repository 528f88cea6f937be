import time
from itertools import pairwise

import grain
import numpy as np
import pytest

from gentrain.datasets.build import build
from gentrain.datasets.rows import Part, Pass, Shuffled, cut, draws_by_source, pack, proportions


def part(rows: int, length: int = 3, first: int = 0) -> Part:
    """Row r is the token first + r, `length` times over."""
    offsets = np.arange(rows + 1) * length
    return Part(
        np.repeat(np.arange(first, first + rows), length), offsets, offsets, np.zeros(0, np.int32), rows * length
    )


def visits(source: Shuffled, steps: int) -> np.ndarray:
    return np.concatenate([source.batch(step)["tokens"][:, 0] for step in range(steps)])


def shuffled(parts, shares=(1,), seed=0, batch_size=8, rows=None):
    return Shuffled(parts, np.array(shares), seed, batch_size, np.arange(batch_size) if rows is None else rows, 3)


@pytest.mark.parametrize("rows", [1, 5, 8, 40, 97])
def test_every_epoch_is_a_new_permutation(rows):
    seen = visits(shuffled([part(rows)]), -(-rows * 3 // 8))
    epochs = [seen[i * rows : (i + 1) * rows] for i in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(rows))
    if rows > 8:
        assert not np.array_equal(epochs[0], epochs[1])
        assert not np.array_equal(epochs[0], np.arange(rows))


def test_order_is_a_function_of_the_seed():
    assert np.array_equal(visits(shuffled([part(50)], seed=3), 9), visits(shuffled([part(50)], seed=3), 9))
    assert not np.array_equal(visits(shuffled([part(50)], seed=3), 9), visits(shuffled([part(50)], seed=4), 9))
    assert visits(shuffled([part(50)], seed=-1), 1).size  # any integer is a seed


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_order_is_the_same_for_any_number_of_processes(processes):
    parts, shares = [part(31), part(12, first=100)], (3, 1)
    whole = shuffled(parts, shares)
    mine = [shuffled(parts, shares, rows=rows) for rows in np.split(np.arange(8), processes)]
    for step in range(12):
        batches = [source.batch(step) for source in mine]
        for key, values in whole.batch(step).items():
            np.testing.assert_array_equal(np.concatenate([batch[key] for batch in batches]), values)


def test_order_is_grains():
    seeds = shuffled([part(31), part(12, first=100)]).seeds
    sets = [
        grain.MapDataset.range(0, 31).shuffle(seed=seeds[0]).repeat(),
        grain.MapDataset.range(100, 112).shuffle(seed=seeds[1]).repeat(),
    ]
    mixed = grain.MapDataset.mix(sets, weights=[300, 100])
    expected = [mixed[n] for n in range(160)]
    np.testing.assert_array_equal(visits(shuffled([part(31), part(12, first=100)], (300, 100)), 20), expected)


def test_shares_are_exact():
    assert proportions([1.0, 1e-9]).tolist() == [1_000_000, 1]  # however rare, it is read
    shares = proportions([0.5, 0.3, 0.2])
    assert shares.tolist() == [500_000, 300_000, 200_000]
    parts = [part(10), part(10, first=100), part(10, first=200)]
    seen = visits(shuffled(parts, shares), 25)
    counts = np.bincount(seen // 100, minlength=3)
    np.testing.assert_array_equal(counts, draws_by_source(200, shares))
    np.testing.assert_allclose(counts / 200, [0.5, 0.3, 0.2], atol=2 / 200)
    np.testing.assert_array_equal(draws_by_source(10**12, shares), [5 * 10**11, 3 * 10**11, 2 * 10**11])


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_are_taken_by_their_number_in_a_split(processes):
    """As whole batches have them, whichever rows of a batch are read here."""
    sources = [part(13)._replace(labels=np.arange(13)), part(6, first=100)._replace(labels=np.arange(50, 56))]
    every = Pass(sources, 4, np.arange(4), 3)
    batches = [every.batch(number) for number in range(every.batches)]
    numbers = np.array([17, 3, 0, 13, 3])
    taken = Pass(sources, 4, np.arange(4 // processes), 3).take(numbers)
    for name in ("tokens", "mask", "source", "context"):
        np.testing.assert_array_equal(taken[name], np.concatenate([batch[name] for batch in batches])[numbers])
    assert taken["row"].tolist() == [0, 1, 2, 3, 4]


def documents(seed: int, longest: int) -> np.ndarray:
    lengths = np.random.default_rng(seed).integers(1, longest, 300)
    return np.concatenate([[0], np.cumsum(lengths)])


@pytest.mark.parametrize("longest", [5, 16, 60])
def test_pad_gives_each_document_its_own_rows(longest):
    offsets = documents(0, longest)
    edges = cut(offsets, 12)
    assert np.all((np.diff(edges) > 0) & (np.diff(edges) <= 12))
    assert np.isin(offsets, edges).all()
    inner = ~np.isin(edges[1:], offsets)
    assert np.all(np.diff(edges)[inner] == 12)  # a document is only left where the row is full
    assert len(edges) - 1 == np.sum(-(-np.diff(offsets) // 12))


@pytest.mark.parametrize("longest", [5, 16, 60])
def test_pack_splits_no_document_that_fits_and_wastes_no_room(longest):
    offsets = documents(1, longest)
    edges = pack(cut(offsets, 12), 12)
    assert edges[0] == 0
    assert edges[-1] == offsets[-1]
    assert np.all((np.diff(edges) > 0) & (np.diff(edges) <= 12))
    for start, stop in pairwise(offsets):
        inside = edges[(edges > start) & (edges < stop)]
        if stop - start <= 12:
            assert not len(inside)
        elif len(inside):
            assert np.all((inside - start) % 12 == 0)
    pieces = cut(offsets, 12)
    for i in range(len(edges) - 2):  # next-fit: the piece that begins the next row did not fit into this one
        following = pieces[np.searchsorted(pieces, edges[i + 1]) + 1]
        assert following - edges[i] > 12


def test_pack_is_fast():
    start = time.perf_counter()
    lengths = np.random.default_rng(0).integers(1, 40, 1_000_000)
    pack(cut(np.concatenate([[0], np.cumsum(lengths)]), 64), 64)
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize("layout", ["pad", "pack"])
def test_a_pass_shows_every_token_once_in_order(text, layout):
    text.data.layout = layout
    data = build(text, None)
    for name in ("train", "valid", "test"):
        split = data.split(name)
        batches = [split.batch(i) for i in range(split.batches)]
        tokens = np.concatenate([batch["tokens"][batch["mask"]] for batch in batches])
        np.testing.assert_array_equal(tokens, split.documents[0])
        assert len(tokens) == split.tokens
        assert all(np.all(batch["tokens"][~batch["mask"]] == 0) for batch in batches)
        assert all(batch["tokens"].shape == (8, 64) and batch["tokens"].dtype == np.int32 for batch in batches)
        with pytest.raises(IndexError):
            split.batch(split.batches)


def test_the_last_batch_is_filled_with_masked_rows():
    split = Pass([part(3), part(2, first=100)], 4, np.array([0, 2]), 3)
    assert split.batches == 2
    assert split.batch(0)["tokens"][:, 0].tolist() == [0, 2]
    last = split.batch(1)
    assert last["mask"].tolist() == [[True] * 3, [False] * 3]
    assert last["tokens"].tolist() == [[101] * 3, [0] * 3]
    assert last["row"].tolist() == [0, 2]
    np.testing.assert_array_equal(split.documents[1], [0, 3, 6, 9, 12, 15])


def test_fewer_rows_than_a_batch_repeat():
    assert sorted(visits(shuffled([part(2)]), 1).tolist()) == [0] * 4 + [1] * 4
