"""Repair: only what is damaged is encoded again, and the result is the never-damaged store."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import damage
import numpy as np
import pytest
from crash import AtStep, die, fork, join, sampled_steps
from damage import SECONDS, files_of, make_world, numbers_of, small_spec
from power_loss import Recorder, lose
from rivals import places_to_stop, stop_for_a_rival
from test_preflight import Usage
from torture import repetitions
from world import InlineDecoders, World, arrays_of, inline_decoders

from tune_cache.cache import disk, preflight
from tune_cache.cache import repair as repairing
from tune_cache.cache.consistency import scope_of
from tune_cache.cache.holds import hold_store
from tune_cache.cache.layout import repair_root
from tune_cache.cache.repair import (
    Repair,
    clean_after,
    damaged_tracks,
    failed_for_now,
    finish_swap,
    move_to_its_place,
    repair_store,
)
from tune_cache.cache.store import open_store
from tune_cache.cache.verify import verify_store
from tune_cache.cache.work import Circumstances, Run
from tune_cache.errors import AudioError, StoreCorruptError, StoreError, StoreMismatchError

SHARD = "embeddings/mean/c/0/0/0"
SECOND_SHARD = "embeddings/mean/c/1/0/0"


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """What survives a loss of power is tested elsewhere; here only order and names matter."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> tuple[World, Path]:
    return make_world(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def world(pristine, tmp_path) -> World:
    """A copy to be harmed; its audio is the same."""
    source, path = pristine
    world = World(tmp_path, dataclasses.replace(source.encoder, log=tmp_path / "encoded.log"))
    world.audio.symlink_to(source.audio)
    place = world.layout.v1 / "toy" / path.name
    shutil.copytree(path, place)
    return world


def store_of(world: World) -> Path:
    (path,) = world.layout.store_paths()
    return path


def run_of(world: World, decoders=inline_decoders) -> Run:
    return Run(lambda: world.encoder, decoders, Circumstances(), lambda event: None)


def repair(world: World, path: Path, decoders=inline_decoders) -> Repair | None:
    """What the command does, with the toy encoder."""
    finish_swap(path)
    found = verify_store(path)
    tracks = world.tracks(sorted(SECONDS))
    wanted = {*damaged_tracks(found), *failed_for_now(found)}
    if not found.is_trusted:
        wanted = {track.track_id for track in tracks}
    if found.is_ok and not wanted:
        found.store.files.hold.close()
        clean_after(path)
        return None
    return repair_store(
        found,
        tracks,
        small_spec(world.encoder),
        wanted=wanted,
        layout=world.layout,
        info=world.encoder.info(),
        run=run_of(world, decoders),
    )


def leftovers(world: World) -> list[str]:
    folder = world.layout.v1 / "toy"
    return [p.name for p in folder.iterdir() if p.suffix not in (".zarr", ".lock")]


def harm(path: Path, file: str, kind: str = "middle byte") -> None:
    damage.harm(damage.Stores(path, path, path), kind, file, random.Random(file))


def flip(path: Path, file: str, place: int) -> None:
    data = bytearray((path / file).read_bytes())
    data[place] ^= 1
    (path / file).write_bytes(bytes(data))


def rows_of(*names: str) -> int:
    return 20 * sum(SECONDS[name] for name in names)


def test_a_damaged_chunk_costs_the_tracks_in_it(world, pristine):
    path = store_of(world)
    flip(path, SHARD, 100)
    hit = verify_store(path).tracks
    done = repair(world, path)
    assert 0 < len(hit) < len(SECONDS)
    assert (done.n_encoded, done.n_copied) == (len(hit), len(SECONDS) - len(hit))
    assert world.encoder.n_encoded() == rows_of(*hit)
    assert arrays_of(path) == arrays_of(pristine[1])
    assert done.is_same
    assert verify_store(path).is_ok
    assert leftovers(world) == []


@pytest.mark.parametrize("kind", ["missing", "middle byte"])
def test_whatever_is_damaged_the_result_is_the_never_damaged_store(world, pristine, kind):
    path = store_of(world)
    expected = arrays_of(pristine[1])
    digest = open_store(pristine[1]).content_digest
    for name in files_of(path)[:: repetitions(3, 1)]:
        before = world.encoder.n_encoded()
        harm(path, name, kind)
        done = repair(world, path)
        assert done is not None, name
        assert arrays_of(path) == expected, name
        assert verify_store(path).is_ok, name
        assert done.store.content_digest == digest
        scope = scope_of(name)
        spent = world.encoder.n_encoded() - before
        if scope == "none" or name == "files.json":
            assert spent == 0, name  # it follows from the rest
        elif scope == "tracks":
            assert 0 < spent <= rows_of(*SECONDS)
        elif name != "zarr.json":
            assert spent == rows_of(*SECONDS)
        assert leftovers(world) == []
        del done


def test_everything_damaged_at_once_is_everything_encoded_again(world, pristine):
    path = store_of(world)
    for name in files_of(path):
        harm(path, name, "emptied")
    done = repair(world, path)
    assert done.n_encoded == len(SECONDS)
    assert arrays_of(path) == arrays_of(pristine[1])


def test_an_extra_file_goes_and_nothing_is_encoded(world):
    path = store_of(world)
    (path / "embeddings" / "extra").mkdir()
    (path / "embeddings" / "extra" / "file").write_text("x")
    assert repair(world, path).n_encoded == 0
    assert verify_store(path).is_ok


def test_a_whole_store_is_left_alone(world):
    path = store_of(world)
    inode = path.stat().st_ino
    assert repair(world, path) is None
    assert path.stat().st_ino == inode
    assert leftovers(world) == []


def test_attributes_and_costs_of_the_first_run_are_carried(world):
    path = store_of(world)
    before = open_store(path)
    attributes, ledger = before.attrs, before.ledger
    del before
    for turn in (1, 2):
        flip(path, SHARD, 100)
        store = repair(world, path).store
        assert store.attrs["provenance"] == attributes["provenance"]
        assert len(store.attrs["repaired"]) == turn
        assert {name: store.ledger[name] for name in ledger} == ledger
        assert len(store.ledger["repairs"]) == turn
        del store
    harm(path, "ledger/extract.json")
    assert set(repair(world, path).store.ledger) == {"repairs"}  # nothing is made up


@pytest.mark.parametrize("lost", ["", "COMPLETE", "ledger/extract.json"])
def test_a_list_of_another_store_costs_nothing(world, pristine, lost):
    path = store_of(world)
    ledger = json.loads((path / "ledger/extract.json").read_text())
    other = damage.make_world(world.folder / "other", seed=1)[1]
    listing = json.loads((other / "files.json").read_text())
    listing["ledger"]["ledger/extract.json"]["bytes"] += 23
    (path / "files.json").write_text(json.dumps(listing))
    if lost:
        (path / lost).write_text("{")
    found = verify_store(path)
    assert {item.file for item in found.findings} == {"files.json", *lost.split()}
    assert {item.scope for item in found.findings} == {"none"}
    done = repair(world, path)
    assert (done.n_encoded, done.is_same) == (0, True)
    assert arrays_of(path) == arrays_of(pristine[1])
    kept = open_store(path).ledger
    assert kept.pop("repairs")
    assert kept == ({} if lost.startswith("ledger") else ledger)


def test_rows_of_other_stores_are_taken_before_anything_is_encoded(world):
    whole = store_of(world)
    names = sorted(SECONDS)[:3]
    world.extract_specs([small_spec(world.encoder)], names=names)
    assert world.encoder.n_encoded() == 0  # copied
    other = next(path for path in world.layout.store_paths() if path != whole)
    for name in (SHARD, SECOND_SHARD):
        harm(whole, name, "missing")
    done = repair(world, whole)
    assert (done.n_encoded, done.n_copied) == (2, 3)
    assert other.exists()


@pytest.mark.parametrize("file", [SHARD, "segments/n_samples/c/0"])  # seen late, and at once
def test_a_source_that_turns_out_damaged_is_passed_over(world, pristine, file):
    whole = store_of(world)
    world.extract_specs([small_spec(world.encoder)], names=sorted(SECONDS)[:3])
    other = next(path for path in world.layout.store_paths() if path != whole)
    flip(other, file, 9)
    harm(whole, SHARD, "missing")
    assert repair(world, whole).n_encoded == len(SECONDS)
    assert arrays_of(whole) == arrays_of(pristine[1])


class Busy(InlineDecoders):
    """Fails some tracks for a reason that may pass, one for a reason that will not."""

    passing: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()

    def submit(self, track_id, path):
        Busy.asked += (track_id,)
        future: Future = Future()
        reason = {"b.wav": "truncated"}.get(track_id) or (
            "timeout" if track_id in Busy.passing else ""
        )
        if not reason:
            return super().submit(track_id, path)
        future.set_exception(AudioError(f"audio file {track_id!r} is hard", reason=reason))
        return future


@contextlib.contextmanager
def busy_decoders(n_workers, spec, spool):
    yield Busy()


@pytest.fixture
def with_failures(pristine, tmp_path) -> World:
    """A store in which one track failed for good and two may do better next time."""
    world = World(tmp_path, dataclasses.replace(pristine[0].encoder, log=tmp_path / "log"))
    world.audio.symlink_to(pristine[0].audio)
    Busy.passing, Busy.asked = ("c.wav", "e.wav"), ()
    from tune_cache.cache.extract import extract_stores

    extract_stores(
        world.tracks(sorted(SECONDS)),
        [small_spec(world.encoder)],
        layout=world.layout,
        info=world.encoder.info(),
        load=lambda: world.encoder,
        open_decoders=busy_decoders,
    )
    Busy.asked = ()
    return world


def test_tracks_that_failed_for_now_are_tried_again_and_no_other(with_failures, pristine):
    world, path = with_failures, store_of(with_failures)
    before = open_store(path).failed
    assert set(before) == {"b.wav", "c.wav", "e.wav"}
    Busy.passing = ()
    done = repair(world, path, busy_decoders)
    assert set(Busy.asked) == {"c.wav", "e.wav"}
    assert done.is_replaced
    assert done.is_same is False
    assert done.failed == {"b.wav": before["b.wav"]}  # word for word
    good = open_store(pristine[1])
    names = ["a.wav", "c.wav", "d.wav", "e.wav"]
    assert np.array_equal(done.store.read(names).values, good.read(names).values)
    assert verify_store(path).is_ok


def test_tracks_that_fail_again_change_nothing(with_failures):
    world, path = with_failures, store_of(with_failures)
    inode, n_encoded = path.stat().st_ino, world.encoder.n_encoded()
    done = repair(world, path, busy_decoders)
    assert not done.is_replaced
    assert path.stat().st_ino == inode
    assert world.encoder.n_encoded() == n_encoded
    assert leftovers(world) == []


def test_when_nothing_can_be_encoded_the_damaged_store_stays(world):
    path = store_of(world)
    for name in files_of(path):
        harm(path, name, "emptied")
    Busy.passing = tuple(SECONDS)
    with pytest.raises(AudioError, match="none of 5 tracks could be encoded"):
        repair(world, path, busy_decoders)
    assert path.exists()
    Busy.passing = ()


def test_a_reader_of_the_damaged_store_goes_on_with_what_it_opened(world, pristine):
    path = store_of(world)
    flip(path, SECOND_SHARD, 100)
    reader = open_store(path)
    done = repair(world, path)
    assert done.kept is not None
    assert verify_store(path).is_ok
    good = open_store(pristine[1])
    assert np.array_equal(reader.read(["a.wav"]).values, good.read(["a.wav"]).values)
    with pytest.raises(StoreCorruptError):
        reader.read(["e.wav"])
    assert np.array_equal(open_store(path).read(["e.wav"]).values, good.read(["e.wav"]).values)
    flip(path, SHARD, 100)  # and a second repair beside the first one's remains
    del done
    again = repair(world, path)
    assert verify_store(path).is_ok
    assert arrays_of(path) == arrays_of(pristine[1])
    assert again.kept is not None
    del reader, again
    assert repair(world, path) is None
    assert leftovers(world) == []


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_linked_store_is_replaced_and_its_folder_left(
    world, pristine, tmp_path, monkeypatch, relative, can_exchange
):
    path, place = store_of(world), tmp_path / "another disk"
    path.rename(place)
    path.symlink_to(os.path.relpath(place, path.parent) if relative else place)
    flip(path, SECOND_SHARD, 100)
    if not can_exchange:
        monkeypatch.setattr(disk, "_exchange", lambda left, right: False)
    reader = open_store(path)  # of a folder that is not removed
    done = repair(world, path)
    assert done.kept is None
    assert done.left.endswith(f"its folder is left at {str(place)!r}")
    assert not path.is_symlink()
    assert arrays_of(path) == arrays_of(pristine[1])
    assert reader.read(["a.wav"])
    assert not verify_store(place).is_ok
    assert leftovers(world) == []


def test_a_damaged_store_that_cannot_be_removed_is_not_said_to_be_read(world, monkeypatch):
    path = store_of(world)
    flip(path, SECOND_SHARD, 100)
    monkeypatch.setattr(repairing, "remove_store", lambda path: "cannot be removed: Denied")
    done = repair(world, path)
    assert done.kept is None
    assert "cannot be removed: Denied" in done.left
    assert verify_store(path).is_ok


def forked(act) -> int:
    """Run something in a child; its exit status, negative for a signal."""
    (code,) = join([fork(act)]).values()
    return code


def steps_of(world: World, path: Path) -> int:
    steps = []
    with disk.observed(lambda operation, place, data: steps.append(operation) or data):
        repair(world, path)
    return len(steps)


def fresh(pristine, folder: Path, name: str) -> tuple[World, Path]:
    world = World(folder, dataclasses.replace(pristine[0].encoder, log=folder / "log"))
    folder.mkdir()
    world.audio.symlink_to(pristine[0].audio)
    path = world.layout.v1 / "toy" / pristine[1].name
    shutil.copytree(pristine[1], path)
    harm(path, name)
    return world, path


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two names"])
def test_a_kill_before_any_disk_operation_is_finished_by_the_next_run(
    pristine, tmp_path, monkeypatch, exchange
):
    if not exchange:
        monkeypatch.setattr(disk, "_exchange", lambda new, old: False)
    expected = arrays_of(pristine[1])
    n_steps = steps_of(*fresh(pristine, tmp_path / "count", SECOND_SHARD))
    assert n_steps > 60
    n_wanted = repetitions(8, n_steps)
    steps = {*sampled_steps(n_steps, n_wanted), *range(n_steps - 7, n_steps + 1)}
    for n in sorted(steps):
        world, path = fresh(pristine, tmp_path / str(n), SECOND_SHARD)

        def killed(world=world, path=path, n=n) -> None:
            with disk.observed(AtStep(n, die)):
                repair(world, path)

        assert forked(killed) == -signal.SIGKILL
        if path.exists():  # whole or as damaged as before, never half
            found = {finding.file for finding in verify_store(path).findings}
            assert found in (set(), {SECOND_SHARD}), (n, found)
        else:
            assert not exchange
        repair(world, path)
        assert arrays_of(path) == expected, n
        assert verify_store(path).is_ok, n
        assert leftovers(world) == [], n
        hit = rows_of(*SECONDS)
        assert world.encoder.n_encoded() <= 2 * hit


def test_a_loss_of_power_leaves_the_damaged_store_or_the_new_one(pristine, tmp_path, monkeypatch):
    expected = arrays_of(pristine[1])
    exchange = disk._exchange
    ways = (exchange, lambda new, old: False)
    n_steps = []
    for number, way in enumerate(ways):
        monkeypatch.setattr(disk, "_exchange", way)
        n_steps.append(steps_of(*fresh(pristine, tmp_path / f"count{number}", SECOND_SHARD)))
    found, n_undone = [], 0
    for seed in range(repetitions(12, 300)):
        draw = random.Random(seed)
        monkeypatch.setattr(disk, "_exchange", ways[seed % 2])
        folder = tmp_path / str(seed)
        world, path = fresh(pristine, folder, SECOND_SHARD)
        last = n_steps[seed % 2] + 1
        # most of the danger is in the last steps: the swap, and the removal of the old store
        die_at = draw.randint(*draw.choice([(2, last), (last - 14, last)]))
        (folder / "graves").mkdir()
        recorder = Recorder(folder / "steps", folder / "graves", die_at)
        code = forked(lambda: recorder.watched(lambda: repair(world, path)))  # noqa: B023
        assert code == -signal.SIGKILL
        effects = lose(recorder.log, draw)
        n_undone += any(not effect.is_safe for effect in effects)
        if path.exists():
            found.append(tuple(finding.file for finding in verify_store(path).findings))
            assert found[-1] in ((), (SECOND_SHARD,)), seed
        else:
            assert ways[seed % 2] is not exchange, seed
        repair(world, path)
        assert arrays_of(path) == expected, seed
        assert verify_store(path).is_ok, seed
        assert leftovers(world) == [], seed
        shutil.rmtree(folder)
    assert set(found) == {(), (SECOND_SHARD,)}
    assert n_undone > len(found) / 2, "the model has nothing to undo: it sees no steps"


def test_a_repair_without_room_is_refused_before_anything_is_encoded(world, monkeypatch):
    path = store_of(world)
    harm(path, SHARD)
    before = {name: (path / name).read_bytes() for name in files_of(path)}
    with monkeypatch.context() as patch:
        patch.setattr(preflight.shutil, "disk_usage", lambda place: Usage(10, 10, 1000))
        with pytest.raises(StoreError, match=r"will be written to .* where 0 MB are free") as error:
            repair(world, path)
    assert "nothing was changed" in str(error.value.hint)
    assert world.encoder.n_encoded() == 0
    assert {name: (path / name).read_bytes() for name in files_of(path)} == before
    assert repair(world, path).is_replaced
    assert verify_store(path).is_ok


def test_a_swap_that_was_cut_in_two_is_finished_or_undone(world, pristine):
    path = store_of(world)
    harm(path, SHARD)
    staged = repair_root(path) / "v1" / "toy" / path.name
    staged.parent.mkdir(parents=True)
    path.rename(staged.with_name(f"{staged.name}.aside"))
    finish_swap(path)  # there is no replacement yet: undone
    assert {finding.file for finding in verify_store(path).findings} == {SHARD}
    path.rename(staged.with_name(f"{staged.name}.aside"))
    shutil.copytree(pristine[1], staged)
    finish_swap(path)
    assert verify_store(path).is_ok


def test_two_repairs_at_once_make_one_store(pristine, tmp_path):
    for turn in range(repetitions(2, 20)):
        world, path = fresh(pristine, tmp_path / str(turn), SHARD)
        pids = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    repair(world, path)
                    code = 0
                finally:
                    os._exit(code)
            pids.append(pid)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
        assert arrays_of(path) == arrays_of(pristine[1])
        repair(world, path)
        assert leftovers(world) == []


@pytest.mark.parametrize("honest", [True, False], ids=["locks work", "locks lie"])
def test_another_repair_may_do_everything_between_any_two_system_calls(pristine, tmp_path, honest):
    world, path = fresh(pristine, tmp_path / "count", SHARD)
    for call in places_to_stop(partial(repair, world, path)):
        world, path = fresh(pristine, tmp_path / str(call), SHARD)
        work = partial(repair, world, path)
        assert stop_for_a_rival(work, call, honest=honest) == [0, 0], call
        assert arrays_of(path) == arrays_of(pristine[1]), call
        repair(world, path)
        assert leftovers(world) == [], call
        shutil.rmtree(world.folder)


def test_a_rival_that_swaps_as_well_does_not_put_the_damaged_store_back(
    world, pristine, monkeypatch
):
    """As where locks lie: both look, both swap."""
    path = store_of(world)
    harm(path, SHARD)
    swap, calls = disk.swap_folders, []

    def twice(new, old):
        swap(new, old)
        calls.append(old)
        if len(calls) == 1:
            swap(new, old)  # the rival's

    monkeypatch.setattr("tune_cache.cache.repair.swap_folders", twice)
    assert repair(world, path).is_replaced
    assert len(calls) == 2
    assert arrays_of(path) == arrays_of(pristine[1])
    assert leftovers(world) == []


def test_a_rival_that_replaces_the_store_before_the_last_look_is_no_damage(
    world, pristine, monkeypatch
):
    """As where locks lie: the last look is at the damaged store, which the rival put there."""
    path = store_of(world)
    harm(path, SHARD)
    look, looked = repairing.verify_store, []

    def after_a_rival(place, **options):
        looked.append(place)
        if len(looked) == 1:
            assert repair(world, path).is_replaced
        return look(place, **options)

    monkeypatch.setattr(repairing, "verify_store", after_a_rival)
    assert repair(world, path).is_replaced
    assert looked[0] != path
    assert arrays_of(path) == arrays_of(pristine[1])
    assert repair(world, path) is None
    assert leftovers(world) == []


def test_a_replacement_that_does_not_verify_is_not_put_in_place(world, monkeypatch):
    path = store_of(world)
    harm(path, SHARD)
    before = {name: (path / name).read_bytes() for name in files_of(path)}

    def torn(operation, place, data):
        if operation == "write" and data is not None and len(data) == (path / SHARD).stat().st_size:
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    with disk.observed(torn), pytest.raises(StoreCorruptError, match="does not verify"):
        repair(world, path)
    assert {name: (path / name).read_bytes() for name in files_of(path)} == before
    assert repair(world, path).is_replaced
    assert verify_store(path).is_ok


def test_a_store_under_another_name_is_moved_to_its_own(world):
    path = store_of(world)
    wrong = path.with_name(path.name.replace("seg0.05", "seg9"))
    path.rename(wrong)
    assert move_to_its_place(verify_store(wrong)) == path
    assert verify_store(path).is_ok
    shutil.copytree(path, wrong)
    with pytest.raises(StoreMismatchError, match="where a store lies already"):
        move_to_its_place(verify_store(wrong))


def test_extract_on_a_damaged_store_says_which_commands_help(world):
    path = store_of(world)
    harm(path, SHARD, "truncated")
    with pytest.raises(StoreCorruptError) as caught:
        world.extract_specs([small_spec(world.encoder)], names=sorted(SECONDS))
    assert f"tune cache repair {path}" in caught.value.hint
    (path / "COMPLETE").unlink()
    with pytest.raises(StoreCorruptError) as caught:
        world.extract_specs([small_spec(world.encoder)], names=sorted(SECONDS))
    assert f"tune cache verify {path}" in caught.value.hint


def test_another_decoder_tries_failed_tracks_again_by_making_another_store(with_failures):
    """The decoder is part of the spec: nothing is copied from what another one read."""
    world, path = with_failures, store_of(with_failures)
    spec = dataclasses.replace(small_spec(world.encoder), decoder="test-2")
    outcome = world.extract_specs([spec], names=sorted(SECONDS))[0]
    assert outcome.path != path
    assert (outcome.n_encoded, outcome.n_copied, outcome.failed) == (5, 0, {})


def test_failed_tracks_are_tried_again_when_the_collection_changes(with_failures):
    """Only rows are copied, and a failed track has none."""
    world = with_failures
    names = sorted(SECONDS)[:-1]
    outcome = world.extract_specs([small_spec(world.encoder)], names=names)[0]
    assert outcome.failed == {}
    assert (outcome.n_encoded, outcome.n_copied) == (2, 2)


def test_a_failed_track_is_copied_word_for_word(with_failures):
    store = open_store(store_of(with_failures))
    outcome = store.outcome_of("b.wav", "b.wav")
    assert outcome.status == "truncated"
    assert f"{outcome.status}: {outcome.message}" == store.failed["b.wav"]
    assert (outcome.n_rows, outcome.covered_samples) == (0, 0)


def test_swapping_names_exchanges_folders_in_either_way(tmp_path, monkeypatch):
    for index, way in enumerate((disk._exchange, lambda new, old: False)):
        monkeypatch.setattr(disk, "_exchange", way)
        new, old = tmp_path / f"new{index}", tmp_path / f"old{index}"
        for folder in (new, old):
            folder.mkdir()
            (folder / "name").write_text(folder.name)
        disk.swap_folders(new, old)
        assert (old / "name").read_text() == f"new{index}"
        assert (new / "name").read_text() == f"old{index}"
        assert sorted(p.name for p in tmp_path.glob(f"*{index}*")) == [f"new{index}", f"old{index}"]


def test_numbers_of_a_repaired_store_are_the_first_ones(world, pristine):
    path = store_of(world)
    expected = numbers_of(pristine[1])
    for name in (SHARD, SECOND_SHARD, "tracks/n_samples/c/0", "zarr.json"):
        harm(path, name)
        with contextlib.suppress(StoreError):
            numbers_of(path)
        repair(world, path)
        found = numbers_of(path)
        assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_a_hold_closed_twice_is_closed(world):
    hold = hold_store(store_of(world))
    hold.close()
    hold.close()
    with pytest.raises(OSError, match="No such file"):
        hold.open("nothing")


def test_the_audio_that_is_wanted_is_that_of_the_damaged_rows(world):
    path = store_of(world)
    flip(path, SHARD, 100)
    found = verify_store(path)
    audio = {track.track_id: track.audio_sha256 for track in world.tracks(sorted(SECONDS))}
    assert damaged_tracks(found) == {name: audio[name] for name in found.tracks}
    assert failed_for_now(found) == {}
