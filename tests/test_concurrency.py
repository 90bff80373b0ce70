"""Any number of writers and readers of one store, with locks that work and locks that lie."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time

import pytest
from crash import (
    LARGEST_UNIT_SEGMENTS,
    N_UNDISTURBED,
    Slow,
    check_resumed,
    fork,
    join,
    leftovers,
    published,
)
from rivals import places_to_stop, stop_for_a_rival
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


@pytest.mark.parametrize("n_writers", [2, 4, 8])
@pytest.mark.parametrize("honest", [True, False], ids=["locks work", "locks lie"])
@pytest.mark.parametrize("are_killed", [False, True], ids=["all live", "half are killed"])
@pytest.mark.parametrize("seed", range(repetitions(1, 20)))
def test_of_any_number_of_writers_half_are_killed_and_nothing_is_harmed(
    pristine, tmp_path, seed, are_killed, honest, n_writers
):
    source, expected = pristine
    world = copy_of(source, tmp_path)
    draw = random.Random(seed)

    def work():
        if not honest:
            locks.fcntl.lockf = lambda *_: None  # says yes to everybody
        world.extract(1.0, "full")

    pids = [fork(work) for _ in range(n_writers)]
    doomed = draw.sample(pids, n_writers // 2) if are_killed else []
    for pid in doomed:
        spend(draw.uniform(0.0, 0.15) / len(doomed))
        os.kill(pid, signal.SIGKILL)
    codes = join(pids)
    assert all(codes[pid] == 0 for pid in pids if pid not in doomed)
    assert published(world) == expected
    if honest:  # a kill costs what its writer had in hand: one unit of one store
        n_killed = sum(code == -signal.SIGKILL for code in codes.values())
        n_wasted = world.encoder.n_encoded() - N_UNDISTURBED
        assert 0 <= n_wasted <= n_killed * LARGEST_UNIT_SEGMENTS
    if honest and not are_killed:
        assert leftovers(world) == []
    check_resumed(world, expected)


@pytest.mark.parametrize("honest", [True, False], ids=["locks work", "locks lie"])
@pytest.mark.parametrize("begun", [False, True], ids=["nothing there", "a journal there"])
def test_a_rival_may_do_everything_between_any_two_system_calls(pristine, tmp_path, begun, honest):
    """One writer stops before its n-th call, another does all its work, the first goes on."""
    source, expected = pristine

    def make(name: str) -> World:
        world = World(tmp_path / name, ToyEncoder())
        shutil.copytree(source.audio, world.audio)
        if begun:
            world.extract(part="1/2")
        return world

    for call in places_to_stop(make("count").extract):
        world = make(str(call))
        codes = stop_for_a_rival(world.extract, call, honest=honest)
        assert codes == [0, 0], call
        ((name, arrays),) = published(world).items()
        assert arrays == expected[name], call
        assert leftovers(world) == [], call
        shutil.rmtree(world.folder)


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


@pytest.mark.parametrize("are_killed", [False, True], ids=["all live", "some are killed"])
@pytest.mark.parametrize("seed", range(repetitions(2, 20)))
def test_shares_in_any_order_and_repeated_make_the_whole(pristine, tmp_path, seed, are_killed):
    source, expected = pristine
    world = copy_of(source, tmp_path)
    draw = random.Random(seed)
    n_parts = draw.choice([2, 3, 5, 9])
    shares = [f"{i}/{n_parts}" for i in range(1, n_parts + 1)]
    tried = shares + draw.sample(shares, draw.randint(1, n_parts))
    draw.shuffle(tried)
    n_killed = 0
    for part in tried:
        is_done = False
        while not is_done:
            pid = fork(lambda part=part: world.extract(1.0, "full", part=part))
            is_doomed = are_killed and draw.random() < 0.4
            if is_doomed:
                spend(draw.uniform(0, 0.05))
                os.kill(pid, signal.SIGKILL)
            code = join([pid])[pid]
            assert code in {0, -signal.SIGKILL} if is_doomed else code == 0
            is_done = code == 0
            n_killed += not is_done
    assert published(world) == expected  # before any run of the whole, which would mend it
    assert leftovers(world) == []
    n_wasted = world.encoder.n_encoded() - N_UNDISTURBED
    assert 0 <= n_wasted <= n_killed * LARGEST_UNIT_SEGMENTS


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
