"""The inventory: a file is hashed once, and never trusted once it may have changed."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time

import pytest
from world import RATE, make_old, write_track

from tune_cache.cache import inventory as module
from tune_cache.cache.inventory import AudioFile, Inventory
from tune_cache.errors import AudioError


@pytest.fixture
def audio(tmp_path):
    path = tmp_path / "audio" / "a.wav"
    write_track(path, 2 * RATE, seed=1)
    return path


@pytest.fixture
def hashed(monkeypatch):
    """Counts the files whose bytes are read."""
    count = []
    real = hashlib.sha256
    monkeypatch.setattr(module.hashlib, "sha256", lambda: count.append(1) or real())
    return count


class Later:
    """A clock an hour ahead: files written now are old enough to be trusted."""

    def __init__(self, monkeypatch) -> None:
        now = time.time()
        monkeypatch.setattr(module.time, "time", lambda: now + 3600)


def test_the_digest_is_that_of_the_bytes(tmp_path, audio):
    with Inventory(tmp_path / "i.sqlite") as inventory:
        found = inventory.file(audio)
    assert found.sha256 == hashlib.sha256(audio.read_bytes()).hexdigest()
    assert found.n_bytes == audio.stat().st_size
    assert found.seconds == pytest.approx(2.0)


def test_a_known_file_is_not_read_again(tmp_path, audio, hashed, monkeypatch):
    Later(monkeypatch)
    for _ in range(3):
        with Inventory(tmp_path / "i.sqlite") as inventory:
            first = inventory.file(audio)
    assert len(hashed) == 1
    with Inventory(tmp_path / "i.sqlite", rehash=True) as inventory:
        assert inventory.file(audio) == first
    assert len(hashed) == 2


def test_a_young_file_is_never_trusted_by_its_time(tmp_path, audio, hashed):
    os.utime(audio)
    for _ in range(2):
        with Inventory(tmp_path / "i.sqlite") as inventory:
            inventory.file(audio)
    assert len(hashed) == 2


def same_times(path, change) -> None:
    """Change a file and put its modification time back, as a restored backup does."""
    status = path.stat()
    change(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-2] + b"ab"),
        lambda path: path.write_bytes(path.read_bytes() + b"ab"),
        lambda path: (
            path.with_suffix(".b").write_bytes(path.read_bytes()[:-2] + b"zz"),
            path.with_suffix(".b").replace(path),
        ),
    ],
    ids=["same size and mtime", "another size", "another inode"],
)
def test_a_changed_file_is_read_again_even_with_its_old_time(tmp_path, audio, change, monkeypatch):
    Later(monkeypatch)
    with Inventory(tmp_path / "i.sqlite") as inventory:
        before = inventory.file(audio)
    same_times(audio, change)
    with Inventory(tmp_path / "i.sqlite") as inventory:
        after = inventory.file(audio)
    assert after.sha256 != before.sha256
    assert after.sha256 == hashlib.sha256(audio.read_bytes()).hexdigest()


def test_a_damaged_database_costs_time_not_truth(tmp_path, audio):
    path = tmp_path / "i.sqlite"
    path.write_bytes(b"this is not a database at all" * 100)
    with Inventory(path) as inventory:
        assert inventory.file(audio).n_bytes == audio.stat().st_size
    assert (tmp_path / "i.damaged").exists()


def test_a_locked_database_does_not_stop_the_run(tmp_path, audio):
    path = tmp_path / "i.sqlite"
    Inventory(path).close()
    make_old(audio)
    blocker = sqlite3.connect(path)
    blocker.execute("BEGIN EXCLUSIVE")
    blocker.execute("ROLLBACK")
    blocker.close()
    with Inventory(path) as inventory:
        assert inventory.file(audio).sha256


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "missing"),
        (lambda path: path.mkdir(), "not-a-file"),
        (lambda path: os.mkfifo(path), "not-a-file"),
        (lambda path: path.symlink_to(path.parent / "nowhere"), "missing"),
    ],
    ids=["missing", "folder", "fifo", "dangling link"],
)
def test_what_is_no_file_is_a_reason_and_never_blocks(tmp_path, make, reason):
    path = tmp_path / "thing"
    make(path)
    with Inventory(tmp_path / "i.sqlite") as inventory, pytest.raises(AudioError) as caught:
        inventory.file(path)
    assert caught.value.reason == reason


def test_names_that_are_not_unicode_are_remembered(tmp_path, hashed, monkeypatch):
    Later(monkeypatch)
    path = tmp_path / os.fsdecode(b"caf\xe9\n.wav")
    write_track(tmp_path / "plain.wav", RATE, seed=3)
    (tmp_path / "plain.wav").rename(path)
    for _ in range(2):
        with Inventory(tmp_path / "i.sqlite") as inventory:
            assert isinstance(inventory.file(path), AudioFile)
    assert len(hashed) == 1


def test_many_files_come_back_in_order_with_their_errors(tmp_path):
    paths = []
    for index in range(20):
        path = tmp_path / f"{index}.wav"
        if index % 3:
            write_track(path, RATE // 10 + index, seed=index)
        paths.append(path)
    with Inventory(tmp_path / "i.sqlite") as inventory:
        found = list(inventory.files(paths))
    assert [path for path, _ in found] == paths
    assert [isinstance(result, AudioError) for _, result in found] == [
        index % 3 == 0 for index in range(20)
    ]


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, audio):
    (tmp_path / "i.sqlite").mkdir()  # nobody can write that, root neither
    with Inventory(tmp_path / "i.sqlite") as inventory:
        assert inventory.file(audio).sha256


def test_a_database_damaged_in_its_middle_costs_time_only(tmp_path, monkeypatch):
    Later(monkeypatch)
    path = tmp_path / "i.sqlite"
    paths = [tmp_path / f"{index}.wav" for index in range(200)]
    for index, audio in enumerate(paths):
        write_track(audio, 200 + index, seed=index)
    with Inventory(path) as inventory:
        expected = [file.sha256 for _, file in inventory.files(paths)]
    data = bytearray(path.read_bytes())
    data[5000:] = b"\xff" * (len(data) - 5000)
    path.write_bytes(bytes(data))
    with Inventory(path) as inventory:
        assert [file.sha256 for _, file in inventory.files(paths)] == expected


def test_one_that_is_only_read_tells_what_is_known_and_writes_nothing(tmp_path, audio, monkeypatch):
    Later(monkeypatch)
    folder = tmp_path / "a folder?mode=rwc#"  # a name is no part of a query
    folder.mkdir()
    with Inventory(folder / "i.sqlite", read_only=True) as inventory:
        assert inventory.remembered([audio]) == {}
    assert list(folder.iterdir()) == []
    with Inventory(folder / "i.sqlite") as inventory:
        known = inventory.file(audio)
    before = (folder / "i.sqlite").read_bytes()
    with Inventory(folder / "i.sqlite", read_only=True) as inventory:
        assert inventory.remembered([audio]) == {audio: known}
        write_track(audio.with_name("b.wav"), RATE, seed=2)
        assert inventory.file(audio.with_name("b.wav"))  # described, and not remembered
    assert (folder / "i.sqlite").read_bytes() == before
    (folder / "i.sqlite").write_bytes(b"no database" * 100)
    with Inventory(folder / "i.sqlite", read_only=True) as inventory:
        assert inventory.remembered([audio]) == {}
    assert [path.name for path in folder.iterdir()] == ["i.sqlite"]
