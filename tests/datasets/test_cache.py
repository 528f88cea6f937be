"""The cache: made once, whole or not at all, and never read with a byte that is not as it was written."""

import os
import socket
import subprocess
import sys
import time

import pytest

from gentrain.datasets import store
from gentrain.datasets.build import build
from gentrain.errors import DataError
from tests.datasets.helpers import texts


def test_changed_files_are_read_again_and_unchanged_ones_are_not(text, tmp_path, cache):
    text.data.valid_fraction = text.data.test_fraction = 0.0
    first = build(text, None).summary
    folders = set(cache.iterdir())
    assert build(text, None).summary == first
    assert set(cache.iterdir()) == folders
    assert not [folder for folder in folders if folder.name.startswith("unfinished")]
    (tmp_path / "lines.txt").write_text("a\nb\nc\n")
    assert build(text, None).summary["documents"] == 3


def test_a_failed_reading_leaves_nothing_in_the_cache(text, tmp_path, cache):
    (tmp_path / "lines.txt").write_bytes(b"\xff")
    with pytest.raises(DataError):
        build(text, None)
    assert list(cache.iterdir()) == []


def test_who_loses_the_race_reads_the_winners_files(cache):
    def early(folder):
        (folder / "who").write_text("early")

    def late(folder):
        (folder / "who").write_text("late")
        store.cached("key", early)  # another process finishes first

    assert (store.cached("key", late) / "who").read_text() == "early"
    assert len(list(cache.iterdir())) == 1


def overwrite(file):
    content = bytearray(file.read_bytes())
    content[1000:1200] = b"\xff" * 200
    file.write_bytes(content)


def shorten(file):
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [overwrite, shorten, os.unlink, lambda file: file.with_name("x").touch()])
@pytest.mark.parametrize("name", ["train.tokens", "train.offsets", "meta.json", "key.json"])
def test_a_damaged_entry_is_found_and_made_anew_with_a_line(text, cache, name, damage):
    before = texts(build(text, None), "train")
    for folder in (file.parent for file in cache.glob("*/train.tokens")):
        damage(folder / name)
    with pytest.warns(UserWarning, match=r"in the cache is damaged; the entry is made anew"):
        assert texts(build(text, None), "train") == before
    assert texts(build(text, None), "train") == before  # and there is nothing more to say


def test_a_tokenizer_in_the_cache_is_an_entry_too(text, cache):
    spec = build(text, None).spec
    (file,) = cache.glob("*/tokenizer.json")
    file.write_text(file.read_text().replace('"a"', '"b"', 1))
    with pytest.warns(UserWarning, match=r"tokenizer\.json in the cache is damaged"):
        assert build(text, None).spec.decode(range(spec.end)) == spec.decode(range(spec.end))


def test_who_has_a_damaged_entry_open_can_go_on_reading(text, cache):
    data = build(text, None)
    tokens = data.split("train").documents[0]
    before = tokens.copy()
    for file in cache.glob("*/valid.tokens"):
        shorten(file)
    with pytest.warns(UserWarning, match="valid.tokens"):
        build(text, None)
    assert (tokens == before).all()


def unfinished(cache, process, host=""):
    folder = cache / f"unfinished-{host or socket.gethostname()}-{process}-abcd_123"
    folder.mkdir(parents=True)
    (folder / "train.tokens").write_text("half")
    return folder


def test_what_a_killed_process_left_unfinished_is_removed_at_the_next_start(text, cache):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left = unfinished(cache, gone.pid)
    mine, elsewhere, old = (unfinished(cache, *of) for of in ((os.getpid(),), (1, "other"), (2, "other")))
    a_day_ago = time.time() - 86_401
    os.utime(old, (a_day_ago, a_day_ago))
    build(text, None)
    assert [folder.exists() for folder in (left, mine, elsewhere, old)] == [False, True, True, False]


def test_a_folder_that_a_process_of_another_container_fills_is_left_alone(cache, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # which is nobody's number here

    def make(folder):
        (folder / "half").write_text("")
        store.clean_up()
        assert folder.exists()

    assert (store.cached("key", make) / "half").exists()


KILLED = """
import os, signal
from gentrain.datasets import store
store.cached("key", lambda folder: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_kill_leaves_a_folder_that_names_its_owner(cache):
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert len(list(cache.glob(f"unfinished-{socket.gethostname()}-*"))) == 1
    store.clean_up()
    assert list(cache.iterdir()) == []


def test_a_touched_file_is_read_again_to_the_same_digest_and_a_changed_one_to_another(text, tmp_path):
    file = tmp_path / "lines.txt"
    before = build(text, None).summary["digests"]
    os.utime(file)
    assert build(text, None).summary["digests"] == before
    assert before.keys() == {text.data.name, "tokenizer"}
    stat = file.stat()
    file.write_text(file.read_text().replace("king", "gnik", 1))  # the same characters, as long, and as old
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = build(text, None).summary["digests"]
    assert after[text.data.name] != before[text.data.name] and after["tokenizer"] == before["tokenizer"]


def test_an_unwritable_cache_is_named(text, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(DataError, match="set GENTRAIN_CACHE"):
        build(text, None)
