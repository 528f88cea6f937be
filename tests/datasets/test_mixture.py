"""Several sources in one run: shares, one vocabulary, orders of their own, and what cannot be mixed."""

import numpy as np
import pytest

from configs import base
from gentrain.datasets.build import build
from gentrain.errors import ConfigError, DataError
from gentrain.options.check import validate
from tests.datasets.helpers import texts


@pytest.fixture
def mixture(config, tmp_path):
    """Two texts of unlike alphabets: 40 lines of x, 12 of y."""
    names = []
    for letter, count in (("x", 40), ("y", 12)):
        folder = tmp_path / letter
        folder.mkdir()
        (folder / "train.txt").write_text("".join(f"{letter}{i}\n" for i in range(count)))
        (folder / "valid.txt").write_text(f"{letter}v\n")
        (folder / "test.txt").write_text(f"{letter}1\n{letter}2\n")
        names.append(f"text:{folder}")
    config.data.name, config.data.text.unit, config.data.batch_size, config.steps = "mixture", "line", 8, 30
    config.data.mixture.sources = ((names[0], 3.0, 0), (names[1], 1.0, 0))
    return config


def lines(data, batch):
    return [
        data.spec.decode(tokens[mask][:-1])
        for tokens, mask in zip(batch["tokens"], batch["mask"], strict=True)
        if mask.any()
    ]


def test_shares_and_epochs_are_those_drawn(mixture):
    data = build(mixture, None)
    seen = [line for step in range(30) for line in lines(data, data.train.batch(step))]
    for (name, _, _), letter, examples in zip(mixture.data.mixture.sources, "xy", (40, 12), strict=True):
        drawn = [line for line in seen if line[0] == letter]
        summary = data.summary["sources"][name]
        assert summary["drawn"] == len(drawn)
        assert summary["share"] == len(drawn) / 240
        assert summary["examples"] == examples == len(set(drawn))
        assert summary["epochs"] == len(drawn) / examples
        counts = np.unique(drawn, return_counts=True)[1]
        assert counts.max() - counts.min() <= 1
    assert data.summary["sources"][mixture.data.mixture.sources[0][0]]["share"] == 0.75


def test_one_tokenizer_for_all_and_splits_one_after_the_other(mixture):
    data = build(mixture, None)
    assert data.spec.vocab == len("xy0123456789\ufffd") + 1  # 'v' is in no train
    assert lines(data, data.split("valid").batch(0)) == ["x\ufffd", "y\ufffd"]
    assert lines(data, data.split("test").batch(0)) == ["x1", "x2", "y1", "y2"]
    tokens, offsets = data.split("test").documents
    assert data.spec.decode(tokens[offsets[2] : offsets[3] - 1]) == "y1"
    assert data.split("test").tokens == len(tokens) == 12


def test_too_many_passes_are_refused_with_numbers(mixture):
    (x, _, _), (y, _, _) = mixture.data.mixture.sources
    mixture.data.mixture.sources = ((x, 3.0, 0), (y, 1.0, 5))
    assert build(mixture, None).summary["sources"][y]["epochs"] == 5.0
    mixture.steps = 31
    with pytest.raises(DataError, match=r"12 train examples and 31 steps of 8 draw 62, 5.17 passes, .* allows 5"):
        build(mixture, None)


@pytest.mark.parametrize("layout", ["pad", "pack"])
def test_the_first_examples_of_one_source_are_all_that_train_has_of_it(mixture, layout):
    """A row is one line where they are padded, and two of them, of 6 tokens, where they are packed."""
    (x, _, _), (y, _, _) = mixture.data.mixture.sources
    mixture.data.layout, mixture.data.length = layout, 6
    whole = build(mixture, None)
    mixture.data.mixture.sources = ((x, 3.0, 0, 5), (y, 1.0, 0))
    data = build(mixture, None)
    per_row = 1 if layout == "pad" else 2
    rows = np.concatenate([data.train.batch(step)["tokens"] for step in range(30)])
    of_x = [row for row in rows if data.spec.decode(row[:1]) == "x"]
    expected = [f"x{i}" for i in range(5 * per_row)]
    assert texts(data, "train:" + x) == expected
    assert texts(data, "train:" + y) == texts(whole, "train:" + y)
    assert data.summary["sources"][x]["examples"] == 5
    assert data.summary["sources"][x]["epochs"] == data.summary["sources"][x]["drawn"] / 5
    assert data.split("train:" + x).characters == 3 * 5 * per_row
    assert data.spec.vocab == whole.spec.vocab
    assert len(np.unique(of_x, axis=0)) == 5
    for split in ("valid", "test"):
        assert texts(data, split) == texts(whole, split)


def test_a_document_that_is_longer_than_the_first_examples_ends_with_them(mixture, tmp_path):
    (tmp_path / "y" / "train.txt").write_text("abcdefghij\nkl\n")
    _, (y, _, _) = mixture.data.mixture.sources
    mixture.data.length = 4
    for examples, ends in ((1, [4]), (2, [8]), (3, [11]), (4, [11, 14])):
        mixture.data.mixture.sources = ((y, 1.0, 0, examples),)
        data = build(mixture, None)
        tokens, offsets = data.split("train").documents
        assert offsets[1:].tolist() == ends and len(tokens) == data.summary["tokens"] == ends[-1]
        assert data.spec.decode(tokens[: min(ends[0], 10)]) == "abcdefghij"[: ends[0]]
    mixture.data.mixture.sources = ((y, 1.0, 0, 5),)
    with pytest.raises(DataError, match=r"has 4 train examples, but data.mixture.sources asks for 5"):
        build(mixture, None)


def test_the_first_examples_keep_their_labels(config):
    config.data.name, config.data.conditional, config.data.batch_size = "mixture", True, 4
    config.data.mixture.sources = (("digits", 1.0, 0),)
    whole = build(config, None).split("train").batch(0)
    config.data.mixture.sources = (("digits", 1.0, 0, 3),)
    few = build(config, None).split("train").batch(0)
    for key in ("tokens", "context"):
        np.testing.assert_array_equal(few[key][:3], whole[key][:3])
    assert few["mask"].any(-1).tolist() == [True] * 3 + [False]


def test_sources_that_do_not_fit_together(mixture, tmp_path):
    x = mixture.data.mixture.sources[0][0]
    mixture.data.mixture.sources = ((x, 1.0, 0), ("digits", 1.0, 0))
    with pytest.raises(DataError, match="a mixture is of text or of images"):
        build(mixture, None)
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    Image.new("L", (8, 8), 3).save(tmp_path / "pictures" / "a.png")
    mixture.data.mixture.sources = (("digits", 1.0, 0), (f"images:{tmp_path / 'pictures'}", 1.0, 0))
    mixture.data.valid_fraction = mixture.data.test_fraction = 0.0
    with pytest.raises(DataError, match="a mixture's images must agree: top is 16 in digits, 255 in"):
        build(mixture, None)
    mixture.data.levels = 4
    data = build(mixture, None)
    assert data.spec.vocab == 4
    assert data.train.batch(0)["tokens"].shape == (8, 64)


@pytest.mark.parametrize(
    "bad",
    [
        *(("digits", 1.0), ("digits", 0.0, 0), ("digits", 1.0, -1), ("mixture", 1.0, 0), ("world:table", 1.0, 0)),
        *(("digits", 1.0, 0, -1), ("digits", 1.0, 0, 2.5), ("digits", 1.0, 0, "2"), ("digits", 1.0, 0, 2, 2)),
    ],
)
def test_bad_sources(bad):
    config = base.get_config()
    config.data.name, config.data.mixture.sources = "mixture", (bad,)
    with pytest.raises(ConfigError, match=r"^data\.mixture\.sources="):
        validate(config)


def test_a_source_named_twice():
    config = base.get_config()
    config.data.name, config.data.mixture.sources = "mixture", (("digits", 1.0, 0), ("digits", 2.0, 0))
    with pytest.raises(ConfigError, match="each source once"):
        validate(config)


@pytest.mark.parametrize("other", ["mixture", "world:ring"])
def test_what_is_no_corpus_cannot_be_read_by_another_source(other):
    config = base.get_config()
    config.data.name, config.data.conditional = f"captions:{other}", True
    with pytest.raises(ConfigError, match=rf"data\.name='captions:{other}'"):
        validate(config)
    with pytest.raises(ConfigError, match=other):
        build(config, None)


def test_sources_of_one_size_go_through_different_orders(mixture, tmp_path):
    """Each source has a seed of its own: rows of two copies of a file are not visited in the same order."""
    (tmp_path / "z").mkdir()
    for split in ("train", "valid", "test"):
        text = (tmp_path / "y" / f"{split}.txt").read_text()
        (tmp_path / "z" / f"{split}.txt").write_text(text.replace("y", "z"))
    names = [f"text:{tmp_path / letter}" for letter in "yz"]
    mixture.data.mixture.sources = tuple((name, 1.0, 0) for name in names)
    data = build(mixture, None)
    seen = [line for step in range(3) for line in lines(data, data.train.batch(step))]  # an epoch of both
    orders = [[line[1:] for line in seen if line[0] == letter] for letter in "yz"]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(str(i) for i in range(12))
    assert orders[0] != orders[1]
