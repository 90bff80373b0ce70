"""A disk that is full, or fails, is a pause: nothing is lost and the rerun completes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from crash import AtStep, check_resumed, run_child, sampled_steps
from torture import repetitions
from world import ToyEncoder, World


def copy_of(source: World, folder: Path, **changes) -> World:
    world = World(folder, ToyEncoder(**changes))
    shutil.copytree(source.audio, world.audio)
    return world


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "failing"])
def test_a_disk_error_at_any_operation_is_a_pause(pristine, n_steps, tmp_path, code):
    source, expected = pristine

    def fail(operation, data):
        raise OSError(code, os.strerror(code))

    for n in sampled_steps(n_steps, repetitions(12, n_steps)):
        world = copy_of(source, tmp_path / str(n))
        assert run_child(world, observer=AtStep(n, fail)) == (10 if code == errno.ENOSPC else 11)
        assert not list(world.layout.v1.rglob("*.tmp"))
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
        assert not list(world.layout.v1.rglob("*.tmp"))
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


def test_a_small_file_system_that_fills_up_is_a_pause(pristine, small_disk, tmp_path):
    source, expected = pristine
    stopped = 0
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
        code = run_child(world)
        assert code in (0, 10)
        stopped += code == 10
        ballast.unlink()
        check_resumed(world, expected)
        shutil.rmtree(world.folder)
    assert stopped
