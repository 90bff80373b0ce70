"""Power is lost at any step: what was committed is there, and the rest is made again."""

from __future__ import annotations

import os
import random
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from crash import check_resumed, published, run_child
from power_loss import Recorder, effects_of, lose
from torture import repetitions
from world import ToyEncoder, World, toy_spec

from tune_cache.cache import disk
from tune_cache.cache.journal import make_work_folder, read_unit

N_STATES = repetitions(20, 300)


def committed(effects, kind: str, suffix: str, then: tuple[str, ...]) -> list[Path]:
    """What took its name before the program went on to something else: it counts on it."""
    found = []
    for number, effect in enumerate(effects):
        went_on = any(later.kind in then for later in effects[number + 1 :])
        if effect.kind == kind and effect.path.name.endswith(suffix) and went_on:
            found.append(effect.path)
    return found


def test_what_was_committed_survives_a_loss_of_power(pristine, n_steps, tmp_path):
    source, expected = pristine
    n_undone = 0
    for seed in range(N_STATES):
        draw = random.Random(seed)
        folder = tmp_path / str(seed)
        world = World(folder, ToyEncoder())
        shutil.copytree(source.audio, world.audio)
        (folder / "graves").mkdir()
        recorder = Recorder(folder / "log", folder / "graves", draw.randint(2, n_steps + 1))
        extract = partial(recorder.watched, partial(world.extract, 1.0, "full"))
        assert run_child(world, work=extract) == -signal.SIGKILL
        effects = lose(recorder.log, draw)
        n_undone += any(not effect.is_safe for effect in effects)

        stores = published(world)
        for path in committed(effects, "publish", ".zarr", ("remove", "create")):
            assert path.name in stores, f"seed {seed}: a published store is gone"
        specs = [toy_spec(world.encoder, seconds) for seconds in (1.0, "full")]
        for path in committed(effects, "rename", ".safetensors", ("create",)):
            work = path.parents[1]
            name = work.name.removeprefix(".").removesuffix(".work")
            if name not in stores:
                spec = next(spec for spec in specs if spec.key[:8] in name)
                assert read_unit(work, int(path.stem), spec), (
                    f"seed {seed}: unit {path.stem} is gone"
                )
        check_resumed(world, expected)
        shutil.rmtree(folder)
    assert n_undone > N_STATES / 2, "the model has nothing to undo: it sees no steps"


def test_the_model_undoes_what_is_not_synchronised(tmp_path):
    log = tmp_path / "log"
    final, temporary = tmp_path / "a", tmp_path / ".a.tmp"
    record = Recorder(log, tmp_path / "graves", 0)
    for operation, path in (
        ("create", temporary),
        ("write", temporary),
        ("sync", temporary),  # said, not done
        ("rename", final),
        ("sync-folder", tmp_path),
    ):
        record(operation, path, None)
    assert not any(effect.is_safe for effect in effects_of(log))
    record.note("fsync", tmp_path)
    record("create", tmp_path / "next", None)
    final.write_bytes(b"content")
    write = next(effect for effect in effects_of(log) if effect.kind == "write")
    assert (write.is_safe, write.now) == (False, final)
    contents = set()
    for seed in range(20):
        final.write_bytes(b"content")
        lose(log, random.Random(seed))
        contents.add(final.read_bytes())
    assert b"content" in contents
    assert len(contents) > 2  # cut, or zeroed, under the name that is safe


def test_the_model_takes_a_file_for_safe_when_it_was_synchronised_in_fact(tmp_path):
    record = Recorder(tmp_path / "log", tmp_path / "graves", 0)
    path = tmp_path / "a"
    record.watched(lambda: disk.write_durably(path, b"content"))
    assert {effect.kind for effect in effects_of(record.log)} == {"create", "write", "rename"}
    assert all(effect.is_safe for effect in effects_of(record.log))
    lose(record.log, random.Random(0))
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("is_synchronised", [True, False])
def test_an_exchange_is_undone_until_both_folders_are_synchronised(tmp_path, is_synchronised):
    """Undone after the old folder was removed, it leaves nothing under the name."""
    made = tmp_path / "made"
    old, new = made / "old", made / "under" / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "name").write_text(folder.name)
    record = Recorder(made / "log", made / "graves", 0)
    with pytest.MonkeyPatch.context() as patch:
        if not is_synchronised:
            patch.setattr(disk, "sync_folder", lambda folder: None)

        def swap() -> None:
            disk.swap_folders(new, old)
            disk.remove_tree(new)

        record.watched(swap)
    assert (old / "name").read_text() == "new"
    found = set()
    for seed in range(20):
        shutil.copytree(made, copy := tmp_path / str(seed))
        log = copy / "log"
        log.write_text(record.log.read_text().replace(str(made), str(copy)))
        lose(log, random.Random(seed))
        place = copy / "old"
        found.add((place / "name").read_text() if (place / "name").exists() else "")
    assert found == ({"new"} if is_synchronised else {"new", "old", ""})


def test_a_folder_whose_maker_was_killed_is_synchronised_by_the_next_run(tmp_path, monkeypatch):
    synchronised = []
    real = os.fsync

    def fsync(descriptor):
        synchronised.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    encoder, work = tmp_path / "v1/muq", tmp_path / "v1/muq/.a.work"
    encoder.mkdir(parents=True)
    (work / "units").mkdir(parents=True, mode=0o700)
    work.chmod(0o700)
    disk.make_folders(encoder)
    assert synchronised == [tmp_path / "v1"]
    make_work_folder(work)
    assert synchronised[1:] == [encoder, work]
