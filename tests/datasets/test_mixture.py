"""Several sources in one run: shares, one vocabulary, orders of their own, and what cannot be mixed."""

import numpy as np
import pytest

from configs import base
from gentrain.datasets.build import build
from gentrain.errors import ConfigError, DataError
from gentrain.options.check import validate


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
    "bad", [("digits", 1.0), ("digits", 0.0, 0), ("digits", 1.0, -1), ("mixture", 1.0, 0), ("world:table", 1.0, 0)]
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
