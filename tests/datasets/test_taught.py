"""A folder of what a teacher says: written by chunks, read by rows, and never trusted further than its digests."""

import json

import ml_dtypes
import numpy as np
import pytest

from gentrain.datasets import taught
from gentrain.datasets.rows import Part, Shuffled
from gentrain.datasets.spec import TextSpec
from gentrain.errors import DataError

LENGTH = 3


def source(seed=0):
    """Two parts, of 5 and of 6 rows, in an endless order."""
    parts = []
    for first, rows in ((0, 5), (100, 6)):
        edges = np.arange(rows + 1) * LENGTH
        parts.append(Part(first + np.repeat(np.arange(rows), LENGTH), edges, edges, np.zeros(0), 0))
    return Shuffled(parts, np.array([1, 2]), seed, 4, np.arange(4), LENGTH)


def note_of(rows):
    wanted = taught.describe(TextSpec(200, LENGTH), rows, "pad", {"text": "abc"})
    return wanted, {**wanted, "arrays": [["large", 2, "bfloat16"], ["small", 1, "int32"]], "asked": {}}


def write(folder, note, until=11):
    """Arrays that say of each row which it is, those of part two from 5 on."""
    folder.mkdir(exist_ok=True)
    writer = taught.Writer(folder, note, chunk=4)
    while writer.done < until:
        rows = np.arange(writer.done, min(writer.done + 4, 11))[:, None, None]
        large = (rows * np.ones((1, LENGTH, 2))).astype(ml_dtypes.bfloat16)
        writer.add({"large": large, "small": (rows * np.ones((1, LENGTH, 1))).astype(np.int32)})
    return writer


def test_each_row_of_a_batch_has_its_own_part_of_the_arrays(tmp_path):
    rows = source()
    wanted, note = note_of(rows)
    write(tmp_path / "taught", note)
    beside = taught.Taught(rows, tmp_path / "taught", taught.open_folder(tmp_path / "taught", wanted))
    spec = TextSpec(200, LENGTH, sources=2, beside=taught.beside(note))
    for step in range(12):
        batch = beside.batch(step)
        number = np.where(batch["tokens"] < 100, batch["tokens"], batch["tokens"] - 95)
        np.testing.assert_array_equal(batch["small"][..., 0], number)
        np.testing.assert_array_equal(batch["large"][..., 1].astype(int), number)
        assert {name: (array.shape, array.dtype.type) for name, array in batch.items()} == spec.batch_shapes(4)


def test_it_goes_on_behind_what_is_whole_and_ends_in_the_same_bytes(tmp_path):
    _, note = note_of(source())
    write(tmp_path / "whole", note)
    write(tmp_path / "cut", note, until=8)
    with (tmp_path / "cut" / "large").open("ab") as file:
        file.write(b"half a chunk, as a kill leaves it")
    with pytest.raises(DataError, match="is damaged or not written from row 8 of 11 on"):
        taught.open_folder(tmp_path / "cut", note_of(source())[0])
    content = bytearray((tmp_path / "cut" / "small").read_bytes())
    content[4 * 3 * 4 + 1] ^= 1  # in the second chunk
    (tmp_path / "cut" / "small").write_bytes(content)
    assert taught.Writer(tmp_path / "cut", note, 4).done == 4
    assert write(tmp_path / "cut", note).done == 11
    for name in ("large", "small", taught.NOTE):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"arrays": [["../large", 2, "bfloat16"]]}, {"arrays": [["large", 2, "object"]]},
     {"arrays": [["large", -2, "int32"]]}, {"rows": "many"}, {"sums": [3]}, {"chunk": 2.5}, {"digests": []}],
    ids=str,
)  # fmt: skip
def test_a_note_that_says_what_it_should_not_is_damaged(change, tmp_path):
    wanted, note = note_of(source())
    write(tmp_path / "taught", note)
    path = tmp_path / "taught" / taught.NOTE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"taught\.json is damaged: remove"):
        taught.open_folder(tmp_path / "taught", wanted)
