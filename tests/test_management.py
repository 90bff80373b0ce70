"""Status, usage, removal: nothing goes that somebody reads, works on, or has not said yes to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import tune
from damage import forge
from rivals import places_to_stop, stop_for_a_rival
from small_dataset import N_TRACKS, make_small_dataset
from world import LENGTHS, RATE, World, arrays_of, make_old, toy_spec, write_track

import tune_cache
from tune_cache.cache import holds, inventory, locks, removal, usage
from tune_cache.cache.holds import hold_store, holders, sole_hold
from tune_cache.cache.layout import lock_path, repair_root
from tune_cache.cache.locks import Claims, alone, claimed_units
from tune_cache.cache.notes import read_note
from tune_cache.cache.removal import remove_store
from tune_cache.cache.status import progress_of
from tune_cache.cache.store import open_store
from tune_cache.cache.usage import is_orphan, items_of, last_use
from tune_cache.commands.management import parse_age
from tune_cache.errors import StoreError, StoreNotFoundError, UsageError, quoted
from tune_cache.reports.results import newest_use
from tune_cache.specs import collection_digest

NAMES = ["a/exact.wav", "b/many.wav"]


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """What survives a loss of power is tested elsewhere."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def world(tmp_path) -> World:
    return World.make(tmp_path)


@contextlib.contextmanager
def child(act) -> Iterator[int]:
    """A process that does something, then waits until the block ends; gives its number."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(done[1])
            kept = act()
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            code = 0 if kept is not None else 2
        finally:
            os._exit(code)
    os.close(ready[1])
    assert os.read(ready[0], 1) == b"x"
    try:
        yield pid
    finally:
        os.close(done[1])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for descriptor in (ready[0], done[0]):
            os.close(descriptor)


def test_a_store_that_another_process_reads_is_not_removed(world):
    path = world.extract()[0].path
    with child(lambda: open_store(path)) as pid:
        assert pid in holders(path)
        with sole_hold(path) as is_free:
            assert not is_free
        assert f"process {pid}" in remove_store(path)
        assert open_store(path)
    assert remove_store(path) == ""
    assert not path.exists()
    with pytest.raises(StoreNotFoundError):
        open_store(path)


def test_reading_holds_without_permission_to_write_and_ends_with_the_object(world):
    path = world.extract()[0].path
    (path / "COMPLETE").chmod(0o444)
    store = open_store(path)
    assert os.getpid() in holders(path)
    assert remove_store(path)
    del store
    assert holders(path) == []
    assert remove_store(path) == ""


def test_where_locks_lie_a_reader_gets_right_numbers_or_an_error(world, monkeypatch):
    path = world.extract()[0].path
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    store = open_store(path)
    expected = store.read(store.track_ids).values
    steps = []

    def look(operation, place, data):
        """At every step of the removal: the numbers, or an error; never other numbers."""
        try:
            steps.append(np.array_equal(store.read(store.track_ids).values, expected))
        except StoreError:
            steps.append(None)
        return data

    from tune_cache.cache import disk

    with disk.observed(look):
        assert remove_store(path) == ""
    assert steps[0] is True
    assert False not in steps
    with pytest.raises(StoreError):
        store.read(store.track_ids)
    with pytest.raises(StoreNotFoundError):
        open_store(path)


def test_a_renamed_store_is_still_the_one_that_was_opened(world):
    path = world.extract()[0].path
    store = open_store(path)
    expected = store.read(NAMES).values
    path.rename(path.with_name("elsewhere"))
    assert np.array_equal(store.read(NAMES).values, expected)


def test_a_store_being_removed_is_not_there_for_who_comes_later(world, monkeypatch):
    path = world.extract()[0].path
    monkeypatch.setattr(holds.time, "sleep", lambda seconds: None)
    with sole_hold(path) as is_free:
        assert is_free
        with pytest.raises(StoreNotFoundError, match="is being removed"):
            hold_store(path)
    assert open_store(path)


def test_without_descriptors_stores_are_read_by_path(world, monkeypatch):
    path = world.extract()[0].path
    expected = open_store(path).read(NAMES).values
    real = os.open

    def scarce(name, flags, *rest, **options):
        if flags & os.O_DIRECTORY:
            raise OSError(24, "Too many open files")
        return real(name, flags, *rest, **options)

    monkeypatch.setattr(os, "open", scarce)
    store = open_store(path)
    assert store.files.hold.folder == -1
    assert np.array_equal(store.read(NAMES).values, expected)


def test_stores_survive_pickling(world):
    import pickle

    store = open_store(world.extract()[0].path)
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.read(NAMES).values, store.read(NAMES).values)


def rm(world: World, *names: str, **options):
    return tune_cache.cache_rm(list(names), cache_dir=world.layout.root, **options)


def test_nothing_is_removed_without_yes(world):
    path = world.extract()[0].path
    (shown,) = rm(world, path.name[:6])
    assert not shown.is_removed
    assert shown.n_bytes == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    assert path.exists()
    (done,) = rm(world, path.name[:6], yes=True)
    assert done.is_removed
    assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == [lock_path(path).name]


def test_what_is_read_is_left_and_the_others_go(world):
    one, two = (outcome.path for outcome in world.extract(1.0, 2.0))
    store = open_store(one)
    left, gone = rm(world, str(one), str(two), yes=True)
    assert "is being read by" in left.problem
    assert gone.is_removed
    assert store.read(NAMES)
    shown, _ = rm(world, str(one), str(one), "seg1")[0], None
    assert "is being read by" in shown.problem


def test_damaged_stores_can_be_removed_and_strangers_folders_cannot(world, tmp_path):
    path = world.extract()[0].path
    (path / "COMPLETE").unlink()
    assert rm(world, str(path), yes=True)[0].is_removed
    folder = tmp_path / "thesis.zarr"
    folder.mkdir()
    (folder / "zarr.json").write_text("{}")
    with pytest.raises(UsageError, match="not in the cache"):
        rm(world, str(folder), yes=True)
    with pytest.raises(StoreNotFoundError):
        rm(world, str(tmp_path / "nothing"), yes=True)
    linked = path.with_name("linked.zarr")
    linked.symlink_to(folder)
    assert rm(world, str(linked), yes=True)[0].is_removed
    assert not linked.is_symlink()
    assert (folder / "zarr.json").exists()


def link_away(path: Path, place: Path, *, relative: bool = False) -> None:
    """Move a store to another place and leave a link to it, as for another disk."""
    path.rename(place)
    path.symlink_to(os.path.relpath(place, path.parent) if relative else place)


@pytest.mark.parametrize("verb", ["rm", "prune"])
@pytest.mark.parametrize("relative", [False, True])
def test_of_a_linked_store_only_the_link_is_removed(world, tmp_path, verb, relative):
    path = world.extract()[0].path
    place = tmp_path / "another disk"
    link_away(path, place, relative=relative)

    def remove(yes: bool):
        if verb == "rm":
            return rm(world, path.name, yes=yes)
        return prune(world, older_than=0, yes=yes)

    (shown,) = remove(False)
    assert f"is left at {str(place)!r}" in shown.why
    assert path.is_symlink()
    reader = open_store(place)  # whichever name it was opened by
    (left,) = remove(True)
    assert "is being read by" in left.problem
    assert path.is_symlink()
    del reader
    (gone,) = remove(True)
    assert (gone.is_removed, gone.problem) == (True, "")
    assert f"is left at {str(place)!r}" in gone.why
    assert [p.name for p in path.parent.iterdir()] == [lock_path(path).name]
    assert open_store(place).read(NAMES)


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_that_an_earlier_version_left_half_removed_goes_as_an_orphan(
    world, tmp_path, dangling
):
    path = world.extract()[0].path
    place = tmp_path / "another disk"
    link_away(path, place)
    path.rename(path.with_name(f".{path.name}.here.99999.abcd1234.removing"))
    if dangling:
        place.rename(tmp_path / "elsewhere")
    (gone,) = prune(world, orphans=True, yes=True)
    assert (gone.kind, gone.is_removed, gone.problem) == ("removing", True, "")
    assert prune(world, orphans=True) == []
    assert place.exists() != dangling


def test_what_cannot_be_removed_after_a_repair_is_not_said_to_be_read(world, monkeypatch):
    path = world.extract()[0].path
    staged = repair_root(path) / "v1" / "toy" / path.name
    staged.parent.mkdir(parents=True)
    shutil.copytree(path, staged)

    def refuse(old, new):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(removal, "rename_folder", refuse)
    (left,) = prune(world, orphans=True, yes=True)
    assert left.problem == "cannot be removed: Permission denied"


def prune(world: World, **options):
    return tune_cache.cache_prune(cache_dir=world.layout.root, **options)


def unfinished(world: World) -> Path:
    """Half a store, as a share of the work leaves it; its name."""
    return world.extract(part="1/2")[0].path


def test_pruning_needs_a_reason(world):
    with pytest.raises(UsageError, match="nothing says what to remove"):
        prune(world)


@pytest.mark.parametrize("host", ["here", "another-host"])
def test_the_remains_of_dead_processes_go_also_those_of_other_hosts(world, host):
    final = unfinished(world)
    building = final.with_name(f".{final.name}.{host}.99999.abcd1234.building")
    removing = final.with_name(f".{final.name}.{host}.99999.abcd1234.removing")
    for folder in (building, removing):
        (folder / "embeddings").mkdir(parents=True)
        (folder / "embeddings/file").write_bytes(b"12345")
    work = world.layout.work_path(final)
    found = prune(world, orphans=True)
    assert {item.path for item in found} == {work, building, removing}
    assert {item.kind for item in found} == {"journal", "building", "removing"}
    assert all(item.path.exists() for item in found)
    assert all(item.is_removed for item in prune(world, orphans=True, yes=True))
    assert [p.name for p in final.parent.iterdir()] == [lock_path(final).name]
    assert prune(world, orphans=True) == []
    assert world.extract()[0].store is not None


def test_orphans_are_removed_whatever_became_of_the_results(world):
    unfinished(world)
    world.layout.results_db.write_bytes(b"no database" * 100)
    assert [item.kind for item in prune(world, orphans=True, yes=True)] == ["journal"]
    for options in ({"unused": True}, {"older_than": 0}):  # these ask when a store was last probed
        with pytest.raises(StoreError, match=r"results\.sqlite"):
            prune(world, **options)


def test_what_somebody_works_on_is_no_orphan(world):
    final = unfinished(world)
    work = world.layout.work_path(final)

    with child(Claims(lock_path(final)).__enter__):
        assert prune(world, orphans=True, yes=True) == []
        assert work.exists()
    with Claims(lock_path(final)):  # in this very process
        assert prune(world, orphans=True, yes=True) == []
    assert prune(world, orphans=True, yes=True)[0].is_removed


def test_asking_does_not_drop_the_claims_of_this_process(world):
    final = unfinished(world)
    lock = lock_path(final)
    with Claims(lock) as claims:
        assert claims.take(0)
        with alone(lock) as is_free:
            assert not is_free
        assert claimed_units(lock) == {}
        pid = os.fork()
        if pid == 0:
            with Claims(lock) as rival:
                os._exit(0 if not rival.take(0) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_where_locks_may_not_reach_quiet_decides(world, monkeypatch):
    final = unfinished(world)
    (item,) = [item for item in items_of(world.layout) if item.kind == "journal"]
    assert is_orphan(item)
    monkeypatch.setattr(usage, "LOCAL", set())
    assert not is_orphan(item)
    assert is_orphan(item, older_than_seconds=0.0)
    quiet = time.time() - 2 * usage.QUIET_SECONDS
    work = world.layout.work_path(final)
    for path in (work, *work.rglob("*")):
        os.utime(path, (quiet, quiet))
    (item,) = [item for item in items_of(world.layout) if item.kind == "journal"]
    assert is_orphan(item)


def test_orphans_can_be_asked_to_be_old(world):
    unfinished(world)
    assert prune(world, orphans=True, older_than="1h") == []
    assert len(prune(world, orphans=True, older_than=0)) == 1


def test_the_only_copy_of_a_store_in_repair_is_no_orphan(world):
    path = world.extract()[0].path
    staged = repair_root(path) / "v1" / "toy" / path.name
    staged.parent.mkdir(parents=True)
    path.rename(staged)
    assert prune(world, orphans=True, yes=True) == []
    staged.rename(path)
    assert [item.kind for item in prune(world, orphans=True, yes=True)] == ["repair"]
    assert open_store(path)


def test_a_replaced_store_that_is_still_read_stays_until_it_is_not(world):
    path = world.extract()[0].path
    staged = repair_root(path) / "v1" / "toy" / path.name
    staged.parent.mkdir(parents=True)
    shutil.copytree(path, staged)
    reader = open_store(staged)
    (left,) = prune(world, orphans=True, yes=True)
    assert "is being read" in left.problem
    assert reader.read(NAMES)
    del reader
    assert prune(world, orphans=True, yes=True)[0].is_removed


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86400
    for place in (path, lock_path(path), *path.rglob("*")):
        os.utime(place, (then, then))


def test_unused_is_without_a_result_and_not_read_since_it_was_made(world):
    paths = [outcome.path for outcome in world.extract(1.0, 2.0, 3.0)]
    for path in paths:
        age(path, 40)
    open_store(paths[1]).read(NAMES)
    connect(world, paths[2])
    assert last_use(paths[0])[1] is None
    assert last_use(paths[1])[1] is not None
    assert [item.path for item in prune(world, unused=True)] == [paths[0]]
    assert [item.path for item in prune(world, unused=True, older_than="30d")] == [paths[0]]
    assert prune(world, unused=True, older_than="50d") == []
    assert prune(world, older_than="50d") == []
    assert [item.path for item in prune(world, older_than="30d")] == [paths[0]]
    assert [item.path for item in prune(world, older_than="30d", orphans=True)] == []


def test_pruning_for_good_leaves_what_is_read_and_removes_the_rest(world):
    one, two = (outcome.path for outcome in world.extract(1.0, 2.0))
    for path in (one, two):
        age(path, 40)
    held = open_store(one)
    shown = prune(world, older_than="30d")
    assert [(item.path, item.is_removed) for item in shown] == [(one, False), (two, False)]
    assert two.exists()
    left, gone = prune(world, older_than="30d", yes=True)
    assert (left.path, left.is_removed) == (one, False)
    assert "is being read by" in left.problem
    assert (gone.path, gone.is_removed, gone.problem) == (two, True, "")
    assert not two.exists()
    assert [p.name for p in two.parent.glob(f".{two.name}*")] == [lock_path(two).name]
    assert held.read(NAMES)
    del held
    age(one, 40)  # it was read just now
    assert [item.path for item in prune(world, older_than="30d", yes=True)] == [one]
    assert not one.exists()


def list_stores(world: World) -> None:
    stores = tune_cache.cache_ls(cache_dir=world.layout.root)
    assert not any(store.problem for store in stores)
    tune_cache.cache_du(cache_dir=world.layout.root)


def ask_for_status(world: World) -> None:
    rows = progress_of(world.layout, audio_of(world), encoder="toy")
    assert not any(row.problem for row in rows)


def verify_all(world: World) -> None:
    found = tune_cache.cache_verify(every=True, cache_dir=world.layout.root)
    assert all(one.is_ok for one in found)


def prune_all(world: World) -> None:
    removed = prune(world, unused=True, older_than=0, yes=True)
    assert all(item.is_removed or "being read" in item.problem for item in removed)


@pytest.mark.parametrize("look", [list_stores, ask_for_status, verify_all, prune_all])
def test_a_store_that_somebody_removes_meanwhile_is_no_damage(look, tmp_path):
    """Whenever it is removed while one looks at all."""
    source = World.make(tmp_path / "source")
    source.extract()

    def make(name: str) -> World:
        shutil.copytree(source.folder, tmp_path / name)
        return World(tmp_path / name, source.encoder)

    def remove(world: World) -> None:
        rm(world, *(path.name for path in world.layout.store_paths()), yes=True)

    for call in places_to_stop(partial(look, make("count"))):
        world = make(str(call))
        rival = partial(remove, world)
        assert stop_for_a_rival(partial(look, world), call, honest=True, rival=rival) == [0, 0]
        shutil.rmtree(world.folder)


def connect(world: World, path: Path) -> None:
    """Write a run of a store as far as pruning looks at it."""
    import sqlite3

    from tune_cache.reports.results import SCHEMA, SCHEMA_VERSION

    database = sqlite3.connect(world.layout.results_db)
    database.executescript(SCHEMA)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    fields = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
    values = dict.fromkeys(fields, "")
    values |= {
        "id": None,
        "seed": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "content_digest": open_store(path).content_digest,
    }
    marks = ", ".join(f":{name}" for name in fields)
    database.execute(f"INSERT INTO runs VALUES ({marks})", values)
    database.commit()
    database.close()
    assert newest_use(world.layout.results_db)


def test_finding_a_store_again_counts_as_use(world):
    path = world.extract()[0].path
    age(path, 40)
    assert world.extract()[0].hit
    assert prune(world, older_than="30d") == []


def test_damaged_stores_are_never_pruned(world):
    path = world.extract()[0].path
    age(path, 40)
    (path / "files.json").unlink()
    assert prune(world, unused=True, older_than="1d", yes=True) == []
    assert path.exists()


@pytest.mark.parametrize("text", ["", "d", "30 days", "-1d", "1y", "nan"])
def test_an_age_that_is_none_is_a_sentence(text):
    with pytest.raises(UsageError, match="age is"):
        parse_age(text)


def test_usage_counts_every_byte_once(world):
    path = world.extract()[0].path
    unfinished_path = world.extract(2.0, part="1/2")[0].path
    rows = tune_cache.cache_du(cache_dir=world.layout.root)
    kinds = {row.kind: row for row in rows}
    assert kinds["store"].name == path.name
    assert kinds["journal"].name == world.layout.work_path(unfinished_path).name
    assert kinds["journal"].is_orphan
    assert not kinds["store"].is_orphan
    on_disk = sum(
        p.stat().st_size for p in world.layout.v1.rglob("*") if p.is_file() and p.suffix != ".lock"
    )
    assert sum(row.n_bytes for row in rows) == on_disk


def audio_of(world: World) -> dict[str, str]:
    return {track.track_id: track.audio_sha256 for track in world.tracks()}


def test_status_tells_what_a_store_has_of_a_dataset(world):
    world.extract(names=sorted(LENGTHS)[:5])
    audio = audio_of(world)
    (row,) = progress_of(world.layout, audio, encoder="toy")
    assert (row.state, row.n_there, row.n_missing, row.n_failed) == ("partial", 5, 3, 0)
    whole = world.extract()[0].path
    rows = {row.path: row for row in progress_of(world.layout, audio, encoder="toy")}
    assert rows[whole].state == "complete"
    assert rows[whole].n_there == len(LENGTHS)
    changed = audio | {"b/many.wav": "ff" * 32}
    rows = {row.path: row for row in progress_of(world.layout, changed, encoder="toy")}
    assert (rows[whole].n_changed, rows[whole].n_there) == (1, len(LENGTHS) - 1)
    unknown = dict.fromkeys(audio, "")
    rows = {row.path: row for row in progress_of(world.layout, unknown, encoder="toy")}
    assert rows[whole].state == "complete"
    assert progress_of(world.layout, audio, encoder="other") == []
    assert progress_of(world.layout, audio, encoder="toy", labels=["2"]) == []
    assert progress_of(world.layout, {"strange": ""}, encoder="toy") == []


def test_status_counts_failures_and_names_damage(world):
    (world.audio / "b/many.wav").write_bytes(b"broken")
    path = world.extract()[0].path
    (row,) = progress_of(world.layout, audio_of(world), encoder="toy")
    assert (row.n_failed, row.n_there, row.state) == (1, len(LENGTHS) - 1, "complete")
    (path / "embeddings/mean/c/0/0/0").unlink()
    (row,) = progress_of(world.layout, audio_of(world), encoder="toy")
    assert row.state == "damaged"
    assert "embeddings/mean/c/0/0/0" in row.problem


def test_status_looks_at_what_a_store_is_and_not_at_its_name(world):
    one, two = (outcome.path for outcome in world.extract(1.0, 2.0))
    shutil.rmtree(one)
    two.rename(one)
    (row,) = progress_of(world.layout, audio_of(world), encoder="toy", labels=["1"])
    assert (row.state, row.n_there) == ("damaged", 0)
    assert f"{str(one)!r} holds another store than its name says" in row.problem
    assert f"belongs at 'toy/{two.name}'" in row.problem


def test_status_tells_how_far_a_journal_is_and_who_is_at_it(world):
    final = unfinished(world)
    work = world.layout.work_path(final)
    note = read_note(work)
    assert note.spec == toy_spec(world.encoder)
    assert note.collection == collection_digest(audio_of(world).items())
    (row,) = progress_of(world.layout, audio_of(world), encoder="toy")
    assert row.state == "unfinished"
    assert 0 < row.units_done < row.units_planned == note.n_units
    assert (row.is_worked_on, dict(row.claims)) == (False, {})

    def claimed():
        claims = Claims(lock_path(final)).__enter__()
        claims.take(1)
        claims.take(3)
        return claims

    with child(claimed) as pid:
        (row,) = progress_of(world.layout, audio_of(world), encoder="toy")
        assert row.is_worked_on
        assert dict(row.claims) == {1: pid, 3: pid}
    (work / "plan.json").write_text("{")
    (row,) = progress_of(world.layout, audio_of(world), encoder="toy")
    assert row.units_planned is None
    assert arrays_of(world.extract()[0].path)


def test_a_file_system_without_locks_says_that_nobody_is_there(world, monkeypatch):
    final = unfinished(world)

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "lockf", refuse)
    monkeypatch.setattr(locks.fcntl, "fcntl", refuse)
    with Claims(lock_path(final)) as claims:
        assert claims.take(0)
    with alone(lock_path(final)) as is_free:
        assert is_free
    assert claimed_units(lock_path(final)) == {}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A dataset and a cache with a store of it."""
    folder = tmp_path_factory.mktemp("made")
    make_small_dataset(folder / "data")
    for path in (folder / "data/audio").iterdir():
        make_old(path)
    (folder / "tune.toml").write_text('[defaults]\ncache_dir = "cache"\nencoder = "mel"\n')
    with pytest.MonkeyPatch.context() as patch:  # the files are young, and would not be remembered
        patch.setattr(inventory, "YOUNGEST_TRUSTED_SECONDS", -1.0)
        done = tune(folder, "extract", "data/small", "--seg", "1")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def home(made, tmp_path) -> Path:
    """A copy of it, in which everything may be broken; its inventory knows the first audio."""
    return Path(shutil.copytree(made, tmp_path / "home"))


def only_store(home: Path) -> Path:
    (path,) = home.glob("cache/v1/mel/*.zarr")
    return path


def rows(home: Path, *arguments: str, code: int = 0):
    done = tune(home, "cache", *arguments, "--json")
    assert done.returncode == code, (arguments, done.stderr)
    found = json.loads(done.stdout)
    assert set(found) == {"schema", "command", "dataset", "rows", "warnings"}
    assert found["command"] == f"cache {arguments[0]}"
    return found["rows"]


def test_the_command_line_verifies_repairs_and_tells_the_tracks(home):
    path = only_store(home)
    (row,) = rows(home, "verify", "seg1")
    assert (row["ok"], row["damaged"]) == (True, [])
    before = arrays_of(path)
    shard = path / "embeddings/mean/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(bytes(data))
    (row,) = rows(home, "verify", "--all", code=4)
    assert [item["file"] for item in row["damaged"]] == ["embeddings/mean/c/0/0/0"]
    assert len(row["tracks"]) == N_TRACKS
    text = tune(home, "cache", "verify", "seg1")
    assert text.returncode == 4
    assert "audio/00.wav" in text.stdout
    assert f"tune cache repair {path}" in text.stdout
    probed = tune(home, "probe", "data/small")
    assert probed.returncode == 4
    assert f"tune cache repair {path}" in probed.stderr
    told = f"{N_TRACKS} track(s) hit: 'audio/00.wav', 'audio/01.wav', 'audio/02.wav' and 21 more"
    assert told in probed.stderr
    exported = tune(home, "cache", "export", "seg1", "--out", "out.npz")
    assert exported.returncode == 4
    assert told in exported.stderr
    assert not (home / "out.npz").exists()
    (row,) = rows(home, "repair", "seg1")
    assert (row["encoded"], row["copied"], row["same_content"]) == (N_TRACKS, 0, True)
    assert arrays_of(path) == before
    assert "nothing is damaged" in tune(home, "cache", "repair", "seg1").stdout


def test_one_store_of_another_version_does_not_end_the_verification_of_all(home):
    path = only_store(home)
    assert tune(home, "extract", "data/small", "--seg", "2").returncode == 0
    group = json.loads((path / "zarr.json").read_text())
    group["attributes"]["spec"]["invented"] = 1
    forge(path, "zarr.json", json.dumps(group).encode())
    assert tune(home, "cache", "verify", "seg1").returncode == 1
    found = {row["store"][:8]: row for row in rows(home, "verify", "--all", code=4)}
    assert found["mel/seg2"]["ok"]
    assert "cannot be read" in found["mel/seg1"]["damaged"][0]["problem"]


def test_segments_can_be_encoded_again_from_the_command_line(home):
    (row,) = rows(home, "verify", "seg1", "--reencode", "4")
    assert [item["same"] for item in row["reencoded"]] == [True] * 4
    assert max(item["largest_difference"] for item in row["reencoded"]) == 0.0
    text = tune(home, "cache", "verify", "seg1", "--reencode", "4", "--dataset", "data/small")
    assert "4 of 4 segments came out as stored" in text.stdout


def test_what_mends_a_store_works_when_pasted_anywhere(home, tmp_path):
    cache = home / "second\ncache"
    (home / "cache").rename(cache)
    (path,) = cache.glob("v1/mel/*.zarr")
    (path / "embeddings/mean/c/0/0/0").unlink()
    for arguments in (("verify", f"mel/{path.name}"), ("info", "seg1")):
        done = tune(home, "cache", *arguments, "--cache-dir", str(cache))
        assert done.returncode == 4
        (line,) = (x for x in (done.stdout + done.stderr).splitlines() if "mend it: " in x)
        assert line.endswith(f"mend it: tune cache repair {quoted(path)}")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert tune(elsewhere, "cache", "verify", str(path)).returncode == 4
    done = tune(elsewhere, "cache", "repair", str(path))  # the audio is that cache's to know
    assert done.returncode == 0, done.stderr
    assert list(elsewhere.iterdir()) == []
    (row,) = rows(elsewhere, "verify", str(path), "--reencode", "2")
    assert [item["same"] for item in row["reencoded"]] == [True] * 2
    assert list(elsewhere.iterdir()) == []


def test_a_store_of_which_nothing_is_left_is_found_by_its_path(home, tmp_path):
    path = only_store(home)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        file.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = tune(elsewhere, "cache", "verify", str(path))
    assert done.returncode == 4
    assert "no vector is affected" not in done.stdout


def import_vectors(home: Path, *ids: str) -> Path:
    """A store that no encoder here can make again."""
    for number, name in enumerate(ids or ("one", "two")):
        file = home / "vectors" / f"{name}.npy"
        file.parent.mkdir(exist_ok=True)
        np.save(file, np.random.default_rng(number).standard_normal((3, 2, 4)).astype("f4"))
    done = tune(
        home, "cache", "import", "vectors", "--encoder-name", "q", "--seg", "1", "--ids", "path"
    )
    assert done.returncode == 0, done.stderr
    (path,) = home.glob("cache/v1/import:q/*.zarr")
    return path


def test_a_store_that_cannot_be_encoded_again_does_not_end_the_verification_of_all(home):
    import_vectors(home)
    every = ("verify", "--all", "--reencode", "2")
    found = {row["store"].partition("/")[0]: row for row in rows(home, *every, code=1)}
    assert "cannot be re-encoded" in found["import:q"]["problem"]
    assert not found["import:q"]["ok"]
    assert [item["same"] for item in found["mel"]["reencoded"]] == [True] * 2
    (home / "cache/v1/audio.sqlite").unlink()
    text = tune(home, "cache", *every)
    assert text.returncode == 1
    assert "cannot be re-encoded: audio of store 'seg1-" in text.stdout
    assert "--dataset" in text.stdout
    (only_store(home) / "COMPLETE").unlink()
    found = {row["store"].partition("/")[0]: row for row in rows(home, *every, code=4)}
    assert found["mel"]["damaged"]
    assert "cannot be re-encoded" in found["import:q"]["problem"]


@pytest.mark.parametrize("file", ["COMPLETE", "files.json", "tracks/zarr.json"])
def test_an_imported_store_is_mended_where_no_vector_is_damaged(home, file):
    path = import_vectors(home)
    before, attributes = arrays_of(path), open_store(path).attrs
    (path / file).unlink()
    assert f"tune cache repair {path}" in tune(home, "cache", "verify", "--all").stdout
    (row,) = rows(home, "repair", str(path))
    assert (row["replaced"], row["encoded"], row["copied"]) == (True, 0, 2)
    assert arrays_of(path) == before
    assert open_store(path).attrs["encoder_note"] == attributes["encoder_note"]


@pytest.mark.parametrize("file", ["embeddings/mean/c/0/0/0", "tracks/id_utf8/c/0"])
def test_damaged_imported_vectors_are_to_be_imported_again(home, file):
    path = import_vectors(home)
    (path / file).write_bytes(b"")
    pasted = f"tune cache rm {path} --yes --cache-dir {home / 'cache'}\n"
    for arguments in (("verify", str(path)), ("info", str(path)), ("repair", str(path))):
        done = tune(home, "cache", *arguments)
        assert done.returncode == 4
        assert pasted in done.stdout + done.stderr
        assert "cache repair" not in done.stdout + done.stderr
    assert tune(home.parent, *pasted.split()[1:]).returncode == 0
    import_vectors(home)
    assert rows(home, "verify", "--all")


def test_audio_that_is_not_at_hand_is_said_and_nothing_is_changed(home):
    path = only_store(home)
    (home / "cache/v1/audio.sqlite").unlink()
    (path / "embeddings/mean/c/0/0/0").unlink()
    done = tune(home, "cache", "repair", "seg1")
    assert done.returncode == 4
    assert "audio is not at hand: 'audio/00.wav'" in done.stderr
    assert "--dataset" in done.stderr
    assert [p.name for p in path.parent.iterdir() if p.suffix != ".lock"] == [path.name]
    (path / "tracks/id_utf8/c/0").unlink()
    done = tune(home, "cache", "repair", "seg1")
    assert "'tracks/id_utf8/c/0' are damaged: all of it must be encoded again" in done.stderr


@pytest.mark.parametrize("lost", ["zarr.json", "tracks/id_utf8/c/0", "everything"])
def test_a_store_of_which_nothing_is_sure_is_made_anew_from_its_dataset(home, lost):
    path = only_store(home)
    before = arrays_of(path)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        if lost in ("everything", file.relative_to(path).as_posix()):
            file.write_bytes(b"")
    assert tune(home, "cache", "repair", "seg1").returncode == 4
    (row,) = rows(home, "repair", "seg1", "--dataset", "data/small")
    assert row["encoded"] == N_TRACKS
    assert arrays_of(path) == before
    assert rows(home, "verify", "seg1")[0]["ok"]


def test_another_dataset_or_other_settings_are_not_taken_for_the_stores_own(home, tmp_path):
    path = only_store(home)
    (path / "zarr.json").write_bytes(b"")
    make_small_dataset(tmp_path / "other", n_tracks=8)
    done = tune(home, "cache", "repair", "seg1", "--dataset", str(tmp_path / "other/small"))
    assert done.returncode == 1
    assert "makes store" in done.stderr
    wrong = path.with_name(path.name.replace("seg1-", "seg2-"))
    path.rename(wrong)
    done = tune(home, "cache", "repair", "seg2", "--dataset", "data/small")
    assert done.returncode == 4
    assert "settings" in done.stderr
    assert wrong.exists()


def test_another_encoder_than_the_stores_is_refused_with_every_difference(home, monkeypatch):
    path = only_store(home)
    (path / "embeddings/mean/c/0/0/0").unlink()
    from tune_cache.commands import sources

    monkeypatch.setattr(sources, "DECODER", "another-1")
    for arguments in (("repair", "seg1"),):
        done = tune(home, "cache", *arguments)
        assert done.returncode == 1
        assert "decoder: 'libsndfile" in done.stderr
        assert "'another-1' here" in done.stderr


def test_diff_names_fields_tracks_and_the_largest_difference(home):
    assert tune(home, "extract", "data/small", "--seg", "1", "--dtype", "f4").returncode == 0
    names = sorted(path.name for path in home.glob("cache/v1/mel/*.zarr"))
    (row,) = rows(home, "diff", *names)
    assert [field["field"] for field in row["fields"]] == ["dtype"]
    assert {row["fields"][0]["left"], row["fields"][0]["right"]} == {"f2", "f4"}
    assert not row["same"]
    assert row["common_tracks"] == N_TRACKS
    assert 0 < row["largest_difference"]["mean"] < 0.1
    (row,) = rows(home, "diff", names[0], names[0])
    assert row["same"]
    assert row["largest_difference"] == {"mean": 0.0}
    assert "largest difference over 24 tracks" in tune(home, "cache", "diff", *names).stdout


def test_diff_names_tracks_that_only_one_has_or_that_changed(world):
    before = world.extract()[0].path
    write_track(world.audio / "b/tail.wav", 3 * RATE, seed=99)
    write_track(world.audio / "d/new.wav", 3 * RATE, seed=98)
    (world.audio / "c/min.wav").unlink()
    after = world.extract()[0].path
    found = tune_cache.cache_diff(before, after, cache_dir=world.layout.root)
    assert found.fields == ()
    assert (found.only_left, found.only_right) == (("c/min.wav",), ("d/new.wav",))
    assert found.other_audio == ("b/tail.wav",)
    assert found.n_common == len(LENGTHS) - 2
    assert found.largest_difference == {"mean": 0.0}
    assert not found.is_same


def test_status_du_rm_and_prune_on_the_command_line(home):
    (row,) = rows(home, "status", "data/small")
    assert (row["state"], row["tracks"], row["missing"]) == ("complete", N_TRACKS, 0)
    assert rows(home, "status", "data/small", "--seg", "9") == []
    assert rows(home, "status", "data/small", "--encoder", "muq") == []
    assert "complete" in tune(home, "cache", "status", "data/small").stdout
    kinds = [row["kind"] for row in rows(home, "du")]
    assert kinds == ["store", "inventory"]
    assert "in all" in tune(home, "cache", "du").stdout
    (row,) = rows(home, "prune", "--unused")
    assert row["removed"] is False
    assert rows(home, "prune", "--orphans", "--older-than", "1h") == []
    assert tune(home, "cache", "prune").returncode == 2
    assert "to be freed" in tune(home, "cache", "rm", "seg1").stdout
    reader = open_store(only_store(home))
    (row,) = rows(home, "rm", "seg1", "--yes", code=1)
    assert "is being read by" in row["problem"]
    assert reader.track_ids
    del reader
    (row,) = rows(home, "rm", "seg1", "--yes")
    assert row["removed"]
    assert rows(home, "verify", "--all") == []
    assert tune(home, "cache", "verify").returncode == 2
    assert tune(home, "cache", "verify", "seg1").returncode == 1


def test_the_command_line_prunes_for_good_and_says_what_it_left(home):
    path = only_store(home)
    age(path, 40)
    common = ("prune", "--older-than", "30d")
    (row,) = rows(home, *common)
    assert (row["removed"], row["problem"]) == (False, "")
    reader = open_store(path)
    (row,) = rows(home, *common, code=0)  # what would be left is no failure of a look
    assert "is being read by" in row["problem"]
    (row,) = rows(home, *common, "--yes", code=1)
    assert (row["path"], row["removed"]) == (str(path), False)
    assert "is being read by" in row["problem"]
    text = tune(home, "cache", *common, "--yes")
    assert text.returncode == 1
    assert f"left store {path} " in text.stdout
    assert path.exists()
    del reader
    (row,) = rows(home, *common, "--yes")
    assert (row["removed"], row["problem"]) == (True, "")
    assert not path.exists()
    assert tune(home, "cache", *common, "--yes").stdout == "nothing to remove\n"


def test_status_writes_nothing(home):
    """Not where there is no cache, nor in one that may only be read; a damaged inventory stays."""
    done = tune(home, "cache", "status", "data/small", "--cache-dir", "nowhere")
    assert (done.returncode, done.stdout) == (0, "nothing of it is in the cache\n")
    assert not (home / "nowhere").exists()
    (home / "empty").mkdir()
    assert tune(home, "cache", "status", "data/small", "--cache-dir", "empty").returncode == 0
    assert list((home / "empty").iterdir()) == []
    before = {path: path.stat() for path in (home / "cache").rglob("*")}
    assert [row["state"] for row in rows(home, "status", "data/small")] == ["complete"]
    for path, status in before.items():
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (status.st_mtime_ns, status.st_ino)
    (home / "cache/v1/audio.sqlite").write_bytes(b"no database" * 100)
    assert [row["state"] for row in rows(home, "status", "data/small")] == ["complete"]
    assert (home / "cache/v1/audio.sqlite").read_bytes() == b"no database" * 100
    assert set((home / "cache").rglob("*")) == set(before)


@pytest.mark.parametrize(
    "verb",
    [
        ("ls",),
        ("du",),
        ("info", "seg1"),
        ("verify", "--all"),
        ("prune", "--orphans"),
        ("status", "data/small"),
    ],
)
@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_empty_cache(home, verb, name):
    (home / "file").write_text("")
    done = tune(home, "cache", *verb, "--cache-dir", name)
    assert done.returncode == 2
    assert f"cache folder {str(home / name)!r} is no folder" in done.stderr
    assert done.stdout == ""


def test_status_reads_no_audio_and_loads_nothing_heavy(home):
    import subprocess
    import sys

    script = (
        "import sys, pathlib, builtins, os\n"
        "real = os.open\n"
        "def guarded(path, *rest, **options):\n"
        "    assert not str(path).endswith('.wav'), path\n"
        "    return real(path, *rest, **options)\n"
        "os.open = guarded\n"
        "sys.argv = ['tune', 'cache', 'status', 'data/small', '--cache-dir', 'cache']\n"
        "from tune_cache.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'zarr', 'sklearn', 'av', 'muq'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout
