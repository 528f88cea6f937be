"""An entry of the cache reaches the disk whole, or is not there."""

import errno

import pytest

from gentrain.datasets import store
from gentrain.errors import DataError


def test_an_entry_is_on_disk_before_it_has_its_name(cache, monkeypatch):
    synced = []

    def sync(path):
        synced.append((path.name, any(path.name[:2] != "un" for path in cache.iterdir())))

    monkeypatch.setattr(store, "sync", sync)
    store.cached("key", lambda folder: (folder / "tokens").write_text("abc"))
    *before, last = synced
    assert {("tokens", False), ("key.json", False)} < set(before) and not any(named for _, named in before)
    assert len(before) == 3 and last == (cache.name, True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_nothing(cache, number):
    def make(folder):
        (folder / "half").write_text("half")
        raise OSError(number, "full")

    with pytest.raises(DataError, match=f"cache {cache} is full: make room, or set GENTRAIN_CACHE"):
        store.cached("key", make)
    assert list(cache.iterdir()) == []
