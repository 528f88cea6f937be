import numpy as np
import pytest

WORDS = ("the", "a", "of", "sea", "king", "night", "storm", "love", "sword", "crown", "was", "is", "not", "and", "came")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "cache"


@pytest.fixture
def lines():
    """200 different short texts."""
    draw = np.random.default_rng(0)
    return [f"{i} " + " ".join(draw.choice(WORDS, draw.integers(1, 9))) + "." for i in range(200)]


@pytest.fixture
def text(config, tmp_path, lines):
    """A config whose data are those lines."""
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n\n")
    config.data.name, config.data.text.unit = f"text:{tmp_path / 'lines.txt'}", "line"
    config.data.length, config.data.batch_size = 64, 8
    config.data.valid_fraction = config.data.test_fraction = 0.1
    return config
