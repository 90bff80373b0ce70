"""A disk that is full, or fails, is a pause: nothing is lost and the rerun completes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import tune
from crash import AtStep, check_resumed, run_child, sampled_steps, unfinished
from small_dataset import make_home
from torture import repetitions
from world import ToyEncoder, World

from tune_cache.cache import disk, extract


def copy_of(source: World, folder: Path, **changes) -> World:
    world = World(folder, ToyEncoder(**changes))
    shutil.copytree(source.audio, world.audio)
    return world


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "failing"])
def test_a_disk_error_at_any_operation_is_a_pause(pristine, steps, tmp_path, code):
    source, expected = pristine

    def fail(operation, data):
        raise OSError(code, os.strerror(code))

    # when the folder of an unfinished store is there, and nothing in it
    begun = [
        n + 1
        for n, (operation, path) in enumerate(steps, 1)
        if operation == "make-folder" and path.suffix == ".building"
    ]
    assert [steps[n - 1][0] for n in begun] == ["sync-folder", "sync-folder"]
    for n in sorted({*sampled_steps(len(steps), repetitions(12, len(steps))), *begun}):
        world = copy_of(source, tmp_path / str(n))
        assert run_child(world, observer=AtStep(n, fail)) == (10 if code == errno.ENOSPC else 11)
        assert unfinished(world) == []
        check_resumed(world, expected)


def test_a_limit_of_file_size_is_a_pause(pristine, tmp_path):
    source, expected = pristine
    stopped = 0
    for size in range(200, 6000, repetitions(1500, 200)):
        world = copy_of(source, tmp_path / str(size))
        planned = world.tracks()  # SQLite's inventory is larger than that

        def limited(size=size, world=world, planned=planned):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            world.extract(1.0, "full", planned=planned)

        code = run_child(world, work=limited)
        assert code in (0, 11)
        stopped += code == 11
        assert unfinished(world) == []
        check_resumed(world, expected)
    assert stopped


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB; where none can be mounted the test says so."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_small_file_system_that_fills_up_is_a_pause(pristine, small_disk, tmp_path, monkeypatch):
    source, expected = pristine
    names = tmp_path / "names"
    # else it refuses what it would not finish, and nothing is met while it is written
    monkeypatch.setattr(extract, "check_room", lambda *_, **__: None)
    for filled in range(400, 1020, repetitions(120, 20)):
        world = World(small_disk / "w", ToyEncoder())
        world.folder.mkdir()
        world.audio.symlink_to(source.audio)
        ballast = small_disk / "ballast"
        world.tracks()
        try:
            with ballast.open("wb") as file:
                file.write(bytes(filled * 1000))
        except OSError:
            pass  # as full as it gets

        def told(world=world):
            try:
                world.extract(1.0, "full")
            except OSError as error:
                with names.open("a") as file:
                    file.write(f"{error.filename}\n")
                raise

        assert run_child(world, work=told) in (0, 10)
        assert unfinished(world) == []
        ballast.unlink()
        check_resumed(world, expected)
        shutil.rmtree(world.folder)
    written = [Path(name) for name in names.read_text().splitlines()]
    assert all(path.is_relative_to(small_disk) for path in written)
    assert len(written) > 1, "it was hardly ever full while something was written"


def test_a_full_disk_is_a_sentence_that_names_the_file(tmp_path):
    make_home(tmp_path)

    def full(operation, path, data):
        if operation == "write" and ".safetensors" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as of write(2): no name
        return data

    with disk.observed(full):
        done = tune(tmp_path, "extract", "--seg", "1")
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(told) == 2
    assert "No space left on device" in told[0]
    assert f"{tmp_path / 'cache'}" in told[0]
    assert "0.safetensors'" in told[0]
    assert "run the same command again" in told[1]
    assert tune(tmp_path, "extract", "--seg", "1").returncode == 0
