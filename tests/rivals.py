"""Two processes of which one does all its work between any two system calls of the other.

A race that needs one change of turns is found by trying every place for it, without a clock.
"""

from __future__ import annotations

import itertools
import os
import posix
import sys
import threading

from crash import fork, join, sampled_steps
from torture import repetitions

from tune_cache.cache import locks


def _at_system_calls(work, act):
    """``work`` that calls ``act(number)`` before each call of the system, in any thread."""
    numbers = itertools.count(1)

    def look(frame, event, function):
        if event == "c_call" and getattr(function, "__module__", "") == posix.__name__:
            act(next(numbers))

    def watched():
        threading.setprofile(look)
        sys.setprofile(look)
        try:
            work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    return watched


def places_to_stop(work, sample: int = 8) -> list[int]:
    """Numbers of system calls that ``work`` makes when nobody is beside it, evenly spread."""
    numbers: list[int] = []
    _at_system_calls(work, numbers.append)()
    return sampled_steps(len(numbers), repetitions(sample, min(len(numbers), 300)))


def stop_for_a_rival(work, call: int, *, honest: bool, rival=None) -> list[int]:
    """Exit statuses of a process that stops before a system call, and of another meanwhile.

    The first goes on when the second has ended, or waits for it.

    Parameters
    ----------
    work, rival
        What the first and the second do; the same by default.
    call
        Before which the first stops, counted from 1.
    honest
        Whether locks work; those of :mod:`tune_cache.cache.locks` say yes to everybody if not.
    """
    rival = rival or work
    stopped, stops = os.pipe()
    goes, go = os.pipe()
    lockf = locks.fcntl.lockf

    def stop(number: int) -> None:
        if number == call:
            os.write(stops, b".")
            os.read(goes, 1)

    def waits(descriptor, operation, *place):
        if not honest:
            return
        try:
            lockf(descriptor, operation | locks.fcntl.LOCK_NB, *place)
        except BlockingIOError:
            if operation & locks.fcntl.LOCK_NB:
                raise
            os.write(go, b".")
            lockf(descriptor, operation, *place)

    def second() -> None:
        locks.fcntl.lockf = waits
        rival()

    def first() -> None:
        if not honest:
            locks.fcntl.lockf = lambda *_: None
        _at_system_calls(work, stop)()

    pids = [fork(first)]
    os.close(stops)
    os.read(stopped, 1)  # or nothing, where it ended without
    pids.append(fork(second))
    codes = join(pids[1:])
    os.write(go, b".")
    codes |= join(pids[:1])
    for descriptor in (stopped, goes, go):
        os.close(descriptor)
    return [codes[pid] for pid in pids]
