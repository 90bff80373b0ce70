"""Killed anywhere, run again: the same bytes, and at most one unit encoded again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time

import pytest
from crash import (
    LARGEST_UNIT_SEGMENTS,
    LENGTHS,
    N_SEGMENTS,
    AtStep,
    Slow,
    check_resumed,
    die,
    fill_up,
    leftovers,
    published,
    run_child,
    sampled_steps,
)
from torture import repetitions
from world import ToyEncoder, World

from tune_cache.cache import locks


@pytest.fixture
def world(pristine, tmp_path):
    source, _ = pristine
    world = World(tmp_path, Slow(log=tmp_path / "encoded.log"))
    shutil.copytree(source.audio, world.audio)
    return world


@pytest.mark.parametrize("seed", range(repetitions(30, 300)))
def test_a_random_kill_is_resumed_to_the_same_bytes(world, pristine, seed):
    draw = random.Random(seed)
    kills = 0
    for _ in range(draw.choice([1, 1, 2])):
        kills += run_child(world, kill_after=draw.uniform(0.0, 0.12)) < 0
    check_resumed(world, pristine[1])
    most = N_SEGMENTS + len(LENGTHS) + kills * (LARGEST_UNIT_SEGMENTS + 10)
    assert world.encoder.n_encoded() <= most


def test_a_kill_before_any_disk_operation_is_resumed(pristine, n_steps, tmp_path):
    source, expected = pristine
    assert n_steps > 60
    for n in sampled_steps(n_steps, repetitions(40, n_steps)):
        world = World(tmp_path / str(n), ToyEncoder(log=tmp_path / f"{n}.log"))
        shutil.copytree(source.audio, world.audio)
        assert run_child(world, observer=AtStep(n, die)) == -signal.SIGKILL
        check_resumed(world, expected)


def test_a_full_disk_at_any_operation_is_a_pause(pristine, n_steps, tmp_path):
    source, expected = pristine
    for n in sampled_steps(n_steps, repetitions(25, n_steps)):
        world = World(tmp_path / str(n), ToyEncoder())
        shutil.copytree(source.audio, world.audio)
        assert run_child(world, observer=AtStep(n, fill_up)) == 10
        assert not list(world.layout.v1.rglob("*.tmp"))
        check_resumed(world, expected)


def test_a_torn_unit_is_never_taken_for_a_unit(pristine, tmp_path):
    source, expected = pristine
    for n in range(1, 40, repetitions(3, 1)):
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


@pytest.mark.parametrize("seed", range(repetitions(6, 40)))
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
