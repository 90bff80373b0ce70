"""Any number of writers and readers of one store, with locks that work and locks that lie."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time

import pytest
from crash import LENGTHS, N_SEGMENTS, Slow, check_resumed, fork, join, leftovers, published
from torture import repetitions
from world import ToyEncoder, World, arrays_of

from tune_cache.cache import locks
from tune_cache.cache.store import open_store
from tune_cache.errors import StoreError


def copy_of(source: World, folder) -> World:
    world = World(folder, Slow(log=folder / "encoded.log"))
    shutil.copytree(source.audio, world.audio)
    return world


def spend(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@pytest.mark.parametrize("honest", [True, False], ids=["locks work", "locks lie"])
@pytest.mark.parametrize("seed", range(repetitions(4, 40)))
def test_of_four_writers_two_are_killed_and_nothing_is_harmed(pristine, tmp_path, seed, honest):
    source, expected = pristine
    world = copy_of(source, tmp_path)
    draw = random.Random(seed)

    def work():
        if not honest:
            locks.fcntl.lockf = lambda *_: None  # says yes to everybody
        world.extract(1.0, "full")

    pids = [fork(work) for _ in range(4)]
    doomed = draw.sample(pids, 2) if seed % 2 else []
    spend(draw.uniform(0.0, 0.15))
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    codes = join(pids)
    assert all(codes[pid] == 0 for pid in pids if pid not in doomed)
    assert published(world) == expected
    check_resumed(world, expected)


@pytest.mark.parametrize("n_writers", [2, 8])
def test_writers_at_once_encode_each_unit_once(pristine, tmp_path, n_writers):
    source, expected = pristine
    world = copy_of(source, tmp_path)
    codes = join([fork(lambda: world.extract(1.0, "full")) for _ in range(n_writers)])
    assert set(codes.values()) == {0}
    assert published(world) == expected
    assert leftovers(world) == []
    assert world.encoder.n_encoded() == N_SEGMENTS + len(LENGTHS)


def test_readers_never_see_a_store_that_is_unfinished_or_changes(pristine, tmp_path):
    source, expected = pristine
    for round_number in range(repetitions(3, 100)):
        world = copy_of(source, tmp_path / str(round_number))
        stop = world.folder / "stop"

        def read(world=world, stop=stop):
            seen = set()
            while True:
                last = stop.exists()
                for path in world.layout.store_paths():
                    seen.add(path.name)
                    assert arrays_of(path) == expected[path.name]
                    store = open_store(path)
                    assert len(store.read(store.track_ids).values) == store.n_segments
                if last:
                    break
            assert seen == set(expected)

        reader = fork(read)
        writers = [fork(lambda world=world: world.extract(1.0, "full")) for _ in range(2)]
        assert set(join(writers).values()) == {0}
        stop.touch()
        assert join([reader])[reader] == 0


@pytest.mark.parametrize("seed", range(repetitions(4, 40)))
def test_shares_in_any_order_and_repeated_make_the_whole(pristine, tmp_path, seed):
    source, expected = pristine
    world = copy_of(source, tmp_path)
    draw = random.Random(seed)
    n_parts = draw.choice([2, 3, 5, 9])
    shares = [f"{i}/{n_parts}" for i in range(1, n_parts + 1)]
    tried = shares + draw.choices(shares, k=2)
    draw.shuffle(tried)
    for part in tried:
        pid = fork(lambda part=part: world.extract(1.0, "full", part=part))
        if draw.random() < 0.4:
            spend(draw.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
        join([pid])
    check_resumed(world, expected)


def test_what_a_dead_process_of_another_host_left_is_cleaned(pristine, tmp_path):
    source, expected = pristine
    world = World(tmp_path, ToyEncoder())
    shutil.copytree(source.audio, world.audio)
    names = sorted(expected)
    folder = world.layout.v1 / "toy"
    orphan = folder / f".{names[0]}.elsewhere.4711.0badcafe.building"
    (orphan / "embeddings").mkdir(parents=True)
    (orphan / "embeddings" / "half").write_bytes(b"half")
    torn = folder / f".{names[0]}.work" / "units" / ".0.safetensors.elsewhere.4711.0badcafe.tmp"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half")
    check_resumed(world, expected)  # nothing is left over


def test_a_reader_of_a_store_that_is_moved_away_gets_the_right_numbers_or_none(pristine, tmp_path):
    source, _ = pristine
    world = copy_of(source, tmp_path)
    (outcome,) = world.extract(1.0)
    store = open_store(outcome.path)
    right = store.read(store.track_ids).values
    shutil.move(outcome.path, outcome.path.with_name("elsewhere"))
    with contextlib.suppress(StoreError):
        assert (store.read(store.track_ids).values == right).all()
    shutil.move(outcome.path.with_name("elsewhere"), outcome.path)
    assert (store.read(store.track_ids).values == right).all()
