"""Killed anywhere, run again: the same bytes, and at most one unit encoded again.

Children are forked from this process, which has everything imported, so that a
kill costs milliseconds. They use the toy encoder and decode in-process.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time

import pytest
from world import RATE, ToyEncoder, World, arrays_of

from tune_cache.cache import disk, locks

LENGTHS = {f"t{i:02}.wav": RATE * (1 + i % 3) for i in range(12)}
N_SEGMENTS = sum(n // RATE for n in LENGTHS.values())
LARGEST_UNIT_SEGMENTS = 10  # ten minutes at the world's minute a second


class Slow(ToyEncoder):
    """Takes a little processor time a batch, so that kills land everywhere."""

    def embed(self, waveforms):
        until = time.perf_counter() + 0.0015
        while time.perf_counter() < until:
            pass
        return super().embed(waveforms)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    world = World.make(tmp_path_factory.mktemp("pristine"), LENGTHS)
    outcome = world.extract(1.0, "full")
    return world, {o.path.name: arrays_of(o.path) for o in outcome}


@pytest.fixture
def world(pristine, tmp_path):
    source, _ = pristine
    world = World(tmp_path, Slow(log=tmp_path / "encoded.log"))
    shutil.copytree(source.audio, world.audio)
    return world


def run_child(world: World, *, kill_after: float | None = None, observer=None) -> int:
    """Extract in a forked child; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if observer is None:
                world.extract(1.0, "full")
            else:
                with disk.observed(observer):
                    world.extract(1.0, "full")
            code = 0
        except OSError as error:
            code = 10 if error.errno == errno.ENOSPC else 11
        finally:
            os._exit(code)
    if kill_after is not None:
        deadline = time.perf_counter() + kill_after
        while time.perf_counter() < deadline:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return 0
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)


def published(world: World) -> dict[str, dict[str, bytes]]:
    return {path.name: arrays_of(path) for path in world.layout.store_paths()}


def leftovers(world: World) -> list[str]:
    """Anything in the cache that is neither store, lock nor inventory."""
    return [
        path.name
        for path in (world.layout.v1 / "toy").iterdir()
        if path.name.startswith(".") and not path.name.endswith(".lock")
    ]


def check_resumed(world: World, expected: dict[str, dict[str, bytes]]) -> None:
    for name, arrays in published(world).items():
        assert arrays == expected[name], f"{name} was visible before it was whole"
    assert run_child(world) == 0
    assert published(world) == expected
    assert leftovers(world) == []


@pytest.mark.parametrize("seed", range(30))
def test_a_random_kill_is_resumed_to_the_same_bytes(world, pristine, seed):
    draw = random.Random(seed)
    kills = 0
    for _ in range(draw.choice([1, 1, 2])):
        kills += run_child(world, kill_after=draw.uniform(0.0, 0.12)) < 0
    check_resumed(world, pristine[1])
    most = N_SEGMENTS + len(LENGTHS) + kills * (LARGEST_UNIT_SEGMENTS + 10)
    assert world.encoder.n_encoded() <= most


def count_steps(world: World) -> int:
    steps = []
    with disk.observed(lambda operation, path, data: steps.append(operation) or data):
        world.extract(1.0, "full")
    return len(steps)


@pytest.fixture(scope="module")
def n_steps(pristine, tmp_path_factory):
    world = World(tmp_path_factory.mktemp("steps"), ToyEncoder())
    shutil.copytree(pristine[0].audio, world.audio)
    return count_steps(world)


class AtStep:
    """An observer that acts at the n-th disk operation."""

    def __init__(self, n: int, act) -> None:
        self.left, self.act = n, act

    def __call__(self, operation, path, data):
        self.left -= 1
        return self.act(operation, data) if self.left == 0 else data


def die(operation, data):
    os.kill(os.getpid(), signal.SIGKILL)


def fill_up(operation, data):
    raise OSError(errno.ENOSPC, "No space left on device")


def sampled_steps(n_steps: int, n_wanted: int) -> list[int]:
    return sorted({1 + (n_steps - 1) * i // (n_wanted - 1) for i in range(n_wanted)})


def test_a_kill_before_any_disk_operation_is_resumed(pristine, n_steps, tmp_path):
    source, expected = pristine
    assert n_steps > 60
    for n in sampled_steps(n_steps, 40):
        world = World(tmp_path / str(n), ToyEncoder(log=tmp_path / f"{n}.log"))
        shutil.copytree(source.audio, world.audio)
        assert run_child(world, observer=AtStep(n, die)) == -signal.SIGKILL
        check_resumed(world, expected)


def test_a_full_disk_at_any_operation_is_a_pause(pristine, n_steps, tmp_path):
    source, expected = pristine
    for n in sampled_steps(n_steps, 25):
        world = World(tmp_path / str(n), ToyEncoder())
        shutil.copytree(source.audio, world.audio)
        assert run_child(world, observer=AtStep(n, fill_up)) == 10
        assert not list(world.layout.v1.rglob("*.tmp"))
        check_resumed(world, expected)


def test_a_torn_unit_is_never_taken_for_a_unit(pristine, tmp_path):
    source, expected = pristine
    for n in range(1, 40, 3):
        world = World(tmp_path / str(n), ToyEncoder())
        shutil.copytree(source.audio, world.audio)
        state = {"torn": False, "left": n}

        def observer(operation, path, data, state=state):
            if operation == "write" and ".safetensors" in path.name and not state["torn"]:
                state["left"] -= 1
                if state["left"] <= 0:
                    state["torn"] = True
                    return data[: len(data) // 2]
            if state["torn"] and operation == "create":
                os.kill(os.getpid(), signal.SIGKILL)
            return data

        run_child(world, observer=observer)
        check_resumed(world, expected)


@pytest.mark.parametrize("seed", range(6))
def test_writers_whose_locks_lie_do_no_harm(pristine, tmp_path, seed):
    source, expected = pristine
    world = World(tmp_path, Slow())
    shutil.copytree(source.audio, world.audio)
    draw = random.Random(seed)
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                locks.fcntl.lockf = lambda *_: None  # says yes to everybody
                world.extract(1.0, "full")
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    doomed = draw.sample(pids, 2) if seed % 2 else []
    until = time.perf_counter() + draw.uniform(0.0, 0.15)
    while time.perf_counter() < until:
        pass
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    codes = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}
    assert all(codes[pid] == 0 for pid in pids if pid not in doomed)
    assert published(world) == expected
    check_resumed(world, expected)


def test_two_extracts_at_once_share_the_work(pristine, tmp_path):
    source, expected = pristine
    world = World(tmp_path, Slow(log=tmp_path / "encoded.log"))
    shutil.copytree(source.audio, world.audio)
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                world.extract(1.0, "full")
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
    assert published(world) == expected
    assert leftovers(world) == []
    assert world.encoder.n_encoded() == N_SEGMENTS + len(LENGTHS)
