"""Killed anywhere, run again: the same bytes, and at most one unit encoded again."""

from __future__ import annotations

import os
import random
import shutil
import signal

import pytest
from crash import (
    LARGEST_UNIT_SEGMENTS,
    LENGTHS,
    N_SEGMENTS,
    AtStep,
    Slow,
    check_resumed,
    die,
    fork,
    join,
    run_child,
    sampled_steps,
)
from torture import repetitions
from world import ToyEncoder, World

from tune_cache.cache import disk


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
    for n in sampled_steps(n_steps, repetitions(30, n_steps)):
        world = World(tmp_path / str(n), ToyEncoder(log=tmp_path / f"{n}.log"))
        shutil.copytree(source.audio, world.audio)
        assert run_child(world, observer=AtStep(n, die)) == -signal.SIGKILL
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
