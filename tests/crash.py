"""A child that extracts a small world and is killed or hindered, and what must be true after.

Children are forked from the test process, which has everything imported, so that a kill costs
milliseconds. They use the toy encoder and decode in-process.
"""

from __future__ import annotations

import errno
import os
import signal
import time
import traceback
from pathlib import Path

from world import RATE, ToyEncoder, World, arrays_of

from tune_cache.cache import disk
from tune_cache.cache.plan import PlannedTrack, make_plan
from tune_cache.errors import TuneCacheError

LENGTHS = {f"t{i:02}.wav": RATE * (1 + i % 3) for i in range(12)}
N_SEGMENTS = sum(n // RATE for n in LENGTHS.values())
N_UNDISTURBED = N_SEGMENTS + len(LENGTHS)  # encoded at a second and in full
# a unit of one length is encoded and committed before the next: a kill costs one at most
LARGEST_UNIT_SEGMENTS = max(
    sum(round(track.seconds / 60) for track in unit)  # the world makes a minute of a second
    for unit in make_plan(
        [
            PlannedTrack(track_id=name, path=Path(name), audio_sha256="", seconds=60 * n / RATE)
            for name, n in LENGTHS.items()
        ]
    )
)


class Slow(ToyEncoder):
    """Takes a little processor time a batch, so that kills land everywhere."""

    def embed(self, waveforms):
        until = time.perf_counter() + 0.0015
        while time.perf_counter() < until:
            pass
        return super().embed(waveforms)


def fork(work) -> int:
    """Run ``work`` in a child; it exits with 0 unless it raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - pytest shows it where a test fails of it
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def join(pids) -> dict[int, int]:
    return {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}


def run_child(world: World, *, kill_after: float | None = None, observer=None, work=None) -> int:
    """Extract in a forked child; its exit status, negative for a signal, 10 and 11 for the disk."""
    work = work or (lambda: world.extract(1.0, "full"))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if observer is None:
                work()
            else:
                with disk.observed(observer):
                    work()
            code = 0
        except (OSError, TuneCacheError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno:
                code = 10 if cause.errno == errno.ENOSPC else 11
        finally:
            os._exit(code)
    if kill_after is not None:
        deadline = time.perf_counter() + kill_after
        while time.perf_counter() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
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


def unfinished(world: World) -> list[str]:
    """Files and folders that an error should have removed; a kill may leave them."""
    return [p.name for kind in ("tmp", "building") for p in world.layout.v1.rglob(f"*.{kind}")]


def steps_of(world: World) -> list[tuple[str, Path]]:
    """Operation and path of every change of the disk in one undisturbed extract."""
    steps = []
    with disk.observed(lambda operation, path, data: steps.append((operation, path)) or data):
        world.extract(1.0, "full")
    return steps


class AtStep:
    """An observer that acts at the n-th disk operation."""

    def __init__(self, n: int, act) -> None:
        self.left, self.act = n, act

    def __call__(self, operation, path, data):
        self.left -= 1
        return self.act(operation, data) if self.left == 0 else data


def die(operation, data):
    os.kill(os.getpid(), signal.SIGKILL)


def sampled_steps(n_steps: int, n_wanted: int) -> list[int]:
    return sorted({1 + (n_steps - 1) * i // (n_wanted - 1) for i in range(n_wanted)})
