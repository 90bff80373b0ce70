"""Two users of one cache: what each may do, and that neither can harm the other (promise 16)."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from pathlib import Path

import pytest
from crash import fork, join
from world import RATE, World, arrays_of

from tune_cache.cache.find import find_stores
from tune_cache.cache.status import progress_of
from tune_cache.cache.store import open_store
from tune_cache.cache.verify import verify_store
from tune_cache.commands.caches import cache_ls
from tune_cache.commands.context import Context
from tune_cache.commands.exchange import export_store
from tune_cache.commands.integrity import cache_repair, cache_verify
from tune_cache.commands.show_caches import verified as verified_text
from tune_cache.datasets.config import Config
from tune_cache.errors import StoreError, TuneCacheError, UsageError

ANNE, BERT, LAB = 54_321, 54_322, 54_300  # two users, and the group that both are in
LENGTHS = {"a.wav": RATE, "b.wav": 2 * RATE, "c.wav": 3 * RATE}

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may act as two other users"
)


@pytest.fixture(scope="module")
def _warm(tmp_path_factory):
    """Import all that the children need: they may not read where Python's libraries are."""
    world = World.make(tmp_path_factory.mktemp("warm"), LENGTHS)
    names = sorted(LENGTHS)
    for some in (names[:2], names, names):
        (outcome,) = world.extract(1.0, names=some)
        verified(outcome.store.path)
    (world.layout.v1 / "x").symlink_to("y")
    with pytest.raises(StoreError):
        open_store(world.layout.v1 / "x")


@pytest.fixture
def world(_warm):
    """Outside pytest's own folder, which nobody but its owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="two-users-"))
    folder.chmod(0o755)
    try:
        made = World.make(folder, LENGTHS)
        made.encoder.log.touch()
        made.encoder.log.chmod(0o666)
        yield made
    finally:
        shutil.rmtree(folder)


def share(world: World, mode: int) -> None:
    """Make the cache's root a folder of the group."""
    root = world.folder / "cache"
    root.mkdir()
    os.chown(root, ANNE, LAB)
    root.chmod(mode)


def as_user(uid: int, work, *, umask: int) -> int:
    """Run in a process of that user; 0, or 10 where an error of ours says what is wrong."""

    def child() -> None:
        os.setgroups([LAB])
        os.setgid(LAB)
        os.setuid(uid)
        os.umask(umask)
        try:
            work()
        except TuneCacheError as error:
            print(repr(error), flush=True)
            os._exit(10 if str(error).strip() else 1)
        except BaseException:
            traceback.print_exc()
            raise

    pid = fork(child)
    return join([pid])[pid]


def stores(world: World) -> list[Path]:
    return world.layout.store_paths()


def test_what_one_makes_the_other_finds_extends_and_mends(world):
    share(world, 0o2775)
    names = sorted(LENGTHS)
    assert as_user(ANNE, lambda: world.extract(1.0, names=names[:2]), umask=0o002) == 0
    (first,) = stores(world)
    assert first.stat().st_uid == ANNE
    before = world.encoder.n_encoded()
    assert as_user(BERT, lambda: world.extract(1.0, names=names[:2]), umask=0o002) == 0
    assert world.encoder.n_encoded() == before  # found, whoever made it
    assert as_user(BERT, lambda: world.extract(1.0, names=names), umask=0o002) == 0
    assert world.encoder.n_encoded() == before + 3  # copied but for the new track
    second = next(path for path in stores(world) if path != first)
    assert second.stat().st_uid == BERT
    for path in (first, second):
        assert as_user(ANNE, lambda path=path: verified(path), umask=0o002) == 0
        assert as_user(BERT, lambda path=path: verified(path), umask=0o002) == 0


def test_what_is_private_is_refused_with_a_sentence_and_made_again_nowhere(world):
    share(world, 0o2775)
    assert as_user(ANNE, lambda: world.extract(1.0, names=sorted(LENGTHS)), umask=0o077) == 0
    (store,) = stores(world)
    assert store.stat().st_mode & 0o077 == 0
    kept = arrays_of(store)
    assert as_user(BERT, lambda: open_store(store), umask=0o002) == 10
    assert as_user(BERT, lambda: world.extract(1.0, names=sorted(LENGTHS)), umask=0o002) == 10
    assert arrays_of(store) == kept
    assert as_user(ANNE, lambda: verified(store), umask=0o077) == 0


def said_private(act) -> int:
    """As a user to whom a store is private."""

    def work() -> None:
        with pytest.raises(StoreError, match="is private to another user") as caught:
            act()
        assert type(caught.value) is StoreError
        assert "chmod -R go+rX" in caught.value.hint

    return as_user(BERT, work, umask=0o002)


@pytest.mark.parametrize(
    "file", ["", "embeddings/mean/c/0/0/0", "tracks/offset/c/0", "COMPLETE", "ledger/extract.json"]
)
def test_what_may_not_be_read_is_not_taken_for_damage(world, file):
    share(world, 0o2775)
    assert as_user(ANNE, lambda: world.extract(1.0, names=sorted(LENGTHS)), umask=0o022) == 0
    (store,) = stores(world)
    (store / file).chmod(0o600 if file else 0o700)
    cache = world.folder / "cache"
    assert said_private(lambda: verify_store(store)) == 0
    assert said_private(lambda: cache_verify(store, cache_dir=cache)) == 0
    assert said_private(lambda: cache_repair(store, cache_dir=cache)) == 0
    if file.startswith(("embeddings", "tracks")):  # what else there is tells whose it is
        asked = {"encoder": "toy", "track_ids": sorted(LENGTHS), "audio": dict}
        assert said_private(lambda: find_stores(world.layout, **asked)) == 0
    if not file.startswith("ledger"):  # which no vector needs
        assert said_private(lambda: open_store(store)) == 0
        assert said_private(lambda: export_store(store, cache / "out.npz", cache_dir=cache)) == 0

    def listed() -> None:
        (line,) = cache_ls(cache_dir=cache)
        assert not line.is_damaged
        assert (line.store is None) == (not file.startswith("ledger"))
        (found,) = cache_verify(every=True, cache_dir=cache)
        assert not found.is_ok
        assert not found.is_damaged
        assert "is private to another user" in found.problem
        assert "not looked at" in verified_text([found], as_json=False)

    assert as_user(BERT, listed, umask=0o002) == 0
    assert as_user(ANNE, lambda: verified(store), umask=0o022) == 0


def test_a_file_that_became_private_since_is_not_taken_for_damage(world):
    share(world, 0o2775)
    assert as_user(ANNE, lambda: world.extract(1.0, names=sorted(LENGTHS)), umask=0o022) == 0
    (store,) = stores(world)
    shard = store / "embeddings/mean/c/0/0/0"

    def read() -> None:
        opened = open_store(store)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        opened.read(opened.track_ids)

    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(said_private(read))
        finally:
            os._exit(1)
    assert os.read(ready[0], 1) == b"x"
    shard.chmod(0o600)
    os.write(done[1], b"x")
    assert join([pid])[pid] == 0


def test_a_source_of_which_a_shard_is_private_is_passed_over(world):
    share(world, 0o2775)
    names = sorted(LENGTHS)
    assert as_user(ANNE, lambda: world.extract(1.0, names=names[:2]), umask=0o002) == 0
    (store,) = stores(world)
    (store / "embeddings/mean/c/0/0/0").chmod(0o600)
    assert as_user(BERT, lambda: world.extract(1.0, names=names), umask=0o002) == 0


@pytest.mark.parametrize("case", ["folder", "store", "sticky"])
def test_a_repair_that_may_not_replace_is_refused_before_anything_is_encoded(world, case):
    share(world, 0o2775)
    umask = 0o022 if case != "sticky" else 0o002
    assert as_user(ANNE, lambda: world.extract(1.0, names=sorted(LENGTHS)), umask=umask) == 0
    (store,) = stores(world)
    (store / "COMPLETE").unlink()
    store.parent.chmod({"folder": 0o2755, "store": 0o2775, "sticky": 0o3775}[case])
    before = sorted(path.name for path in store.parent.iterdir())

    def refused() -> None:
        with pytest.raises(StoreError, match="cannot be replaced") as caught:
            cache_repair(store, cache_dir=world.folder / "cache")
        assert "nothing was changed" in caught.value.hint

    assert as_user(BERT, refused, umask=0o002) == 0
    assert sorted(path.name for path in store.parent.iterdir()) == before
    assert world.encoder.n_encoded() == sum(LENGTHS.values()) // RATE


@pytest.mark.parametrize("place", ["store", "work", "lock"])
def test_a_link_that_another_planted_is_never_written_through(world, place):
    share(world, 0o1777)
    assert as_user(ANNE, lambda: world.extract(1.0, names=sorted(LENGTHS)[:1]), umask=0o022) == 0
    (store,) = stores(world)
    shutil.rmtree(store)
    lock = world.layout.lock_path(store)
    lock.unlink()
    store.parent.chmod(0o1777)
    victim = world.folder / "victim"
    victim.mkdir()
    os.chown(victim, ANNE, LAB)
    (victim / "thesis.txt").write_text("months of work")
    target = {"store": store, "work": world.layout.work_path(store), "lock": lock}[place]

    def plant() -> None:
        target.symlink_to(victim / "thesis.txt" if place == "lock" else victim)

    assert as_user(BERT, plant, umask=0o022) == 0
    assert as_user(ANNE, lambda: world.extract(1.0, names=sorted(LENGTHS)[:1]), umask=0o022) in (
        0,
        10,
    )
    assert [path.name for path in victim.iterdir()] == ["thesis.txt"]
    assert (victim / "thesis.txt").read_text() == "months of work"


def test_a_root_in_which_anybody_could_plant_is_refused(world):
    share(world, 0o777)

    def refused() -> None:
        with pytest.raises(UsageError, match="writable by everybody"):
            world.layout.prepare()

    assert as_user(ANNE, refused, umask=0o022) == 0


def test_status_is_told_of_a_cache_that_only_another_may_write(world):
    share(world, 0o755)
    assert as_user(ANNE, lambda: world.extract(1.0, names=sorted(LENGTHS)), umask=0o022) == 0
    audio = {track.track_id: track.audio_sha256 for track in world.tracks()}

    def look() -> None:
        with Context(Config(), world.layout).inventory(read_only=True) as inventory:
            inventory.remembered([world.audio / "b.wav"])
        (row,) = progress_of(world.layout, audio, encoder="toy")
        assert row.state == "complete"

    assert as_user(BERT, look, umask=0o002) == 0
    world.layout.v1.chmod(0o700)
    assert as_user(BERT, look, umask=0o002) == 10


def verified(path: Path) -> None:
    """Raise unless every byte of a store is as written."""
    findings = verify_store(path).findings
    if findings:
        raise StoreError(str(findings))
