"""Killed anywhere, run again: the same bytes, and at most one unit encoded again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from crash import (
    LARGEST_UNIT_SEGMENTS,
    N_UNDISTURBED,
    AtStep,
    Slow,
    check_resumed,
    die,
    fork,
    join,
    run_child,
    sampled_steps,
)
from torture import FULL, repetitions
from world import ToyEncoder, World

from tune_cache.cache import disk


@pytest.fixture
def world(pristine, tmp_path):
    source, _ = pristine
    world = World(tmp_path, Slow(log=tmp_path / "encoded.log"))
    shutil.copytree(source.audio, world.audio)
    return world


@pytest.fixture(scope="module")
def undisturbed_seconds(pristine, tmp_path_factory):
    world = World(tmp_path_factory.mktemp("undisturbed"), Slow())
    shutil.copytree(pristine[0].audio, world.audio)
    began = time.perf_counter()
    assert run_child(world) == 0
    return time.perf_counter() - began


def start_again(world: World) -> None:
    shutil.rmtree(world.layout.root)
    world.encoder.log.unlink(missing_ok=True)


@pytest.mark.parametrize("seed", range(repetitions(30, 300)))
def test_a_random_kill_is_resumed_to_the_same_bytes(world, pristine, undisturbed_seconds, seed):
    """Every seed is a kill that landed: one that came too late is drawn again."""
    draw = random.Random(seed)
    wanted = draw.choice([1, 1, 2])
    codes: list[int] = []
    while codes != wanted * [-signal.SIGKILL]:
        codes.append(run_child(world, kill_after=draw.uniform(0.0, undisturbed_seconds)))
        assert codes[-1] in (0, -signal.SIGKILL)
        if codes[-1] == 0:
            start_again(world)
            codes = []
    check_resumed(world, pristine[1])
    assert world.encoder.n_encoded() <= N_UNDISTURBED + wanted * LARGEST_UNIT_SEGMENTS


def test_a_kill_before_any_disk_operation_is_resumed(pristine, n_steps, tmp_path):
    source, expected = pristine
    assert n_steps > 60
    repeated = []
    for n in sampled_steps(n_steps, repetitions(30, n_steps)):
        world = World(tmp_path / str(n), ToyEncoder(log=tmp_path / f"{n}.log"))
        shutil.copytree(source.audio, world.audio)
        assert run_child(world, observer=AtStep(n, die)) == -signal.SIGKILL
        check_resumed(world, expected)
        repeated.append(world.encoder.n_encoded() - N_UNDISTURBED)
    assert min(repeated) >= 0
    assert 0 < max(repeated) <= LARGEST_UNIT_SEGMENTS


class Torn:
    """An observer that tears the n-th step, a write, and kills at the next step of some kind."""

    def __init__(self, n: int, then: str, draw: random.Random) -> None:
        self.left, self.then, self.draw = n, then, draw
        self.is_torn = False

    def __call__(self, operation, path, data):
        self.left -= 1
        if self.is_torn and operation == self.then:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.left == 0:
            self.is_torn = True
            return data[: self.draw.randrange(len(data))]
        return data


def final_of(temporary: Path) -> Path:
    """The file that ``.NAME.HOST.PID.RANDOM.tmp`` is to become."""
    return temporary.with_name(temporary.name.removeprefix(".").rsplit(".", 4)[0])


def kind_of(temporary: Path) -> str:
    name = final_of(temporary).name
    return "unit" if name.endswith(".safetensors") else name


UNIT_WRITTEN = ("write", "unit")


def test_a_torn_write_of_any_file_is_never_taken_for_the_file(pristine, steps, tmp_path):
    source, expected = pristine
    writes = {n: kind_of(path) for n, (kind, path) in enumerate(steps, 1) if kind == "write"}
    firsts = {kind: n for n, kind in reversed(writes.items())}
    assert set(firsts) == {
        "plan.json", "unit", "0", "zarr.json", "extract.json", "files.json", "COMPLETE",
    }  # fmt: skip
    sample = {*firsts.values(), *list(writes)[::8]}
    for n in writes if FULL else sorted(sample):
        world = World(tmp_path / str(n), ToyEncoder())
        shutil.copytree(source.audio, world.audio)
        torn = Torn(n, "sync", random.Random(n))
        assert run_child(world, observer=torn) == -signal.SIGKILL
        left = list(world.layout.v1.rglob("*.tmp"))
        assert [final_of(path).exists() for path in left] == [False]
        check_resumed(world, expected)


@pytest.mark.parametrize("seed", range(repetitions(1, 10)))
def test_a_torn_unit_is_never_taken_for_a_unit(pristine, steps, tmp_path, seed):
    """As where a power cut lost the content of a file, and not its name."""
    source, expected = pristine
    units = [n for n, (kind, path) in enumerate(steps, 1) if (kind, kind_of(path)) == UNIT_WRITTEN]
    assert len(units) == 6
    for n in units:
        world = World(tmp_path / str(n), ToyEncoder())
        shutil.copytree(source.audio, world.audio)
        torn = Torn(n, "create", random.Random(n + 1000 * seed))
        assert run_child(world, observer=torn) == -signal.SIGKILL
        check_resumed(world, expected)


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename"])
def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(tmp_path, operation):
    path = tmp_path / "0.safetensors"
    disk.write_durably(path, b"old")

    def replace():
        with disk.observed(lambda step, path, data: die(step, data) if step == operation else data):
            disk.write_durably(path, b"new" * 10_000)

    pid = fork(replace)
    assert join([pid])[pid] == -signal.SIGKILL
    assert path.read_bytes() == b"old"
