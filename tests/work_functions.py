"""Functions for processes that tests start: these must be found by name."""

from __future__ import annotations

import os
import signal

from threadpoolctl import threadpool_info

from tune_cache.errors import TaskError


def make_adder(amount):
    def add(item):
        if item == "refused":
            raise TaskError("this item is refused", hint="leave it out")
        if item == "defect":
            raise ZeroDivisionError("a defect")
        if item == "killed":
            os._exit(9)
        if isinstance(item, signal.Signals):
            os.kill(os.getpid(), item)
        return item + amount, os.getpid()

    return add


def make_thread_counter():
    import scipy.linalg  # noqa: F401 - one more library with threads

    return lambda _: [library["num_threads"] for library in threadpool_info()]


def make_sleeper():
    def sleep(_):
        os.write(1, f"{os.getpid()}\n".encode())  # in one piece, also where Python is unbuffered
        signal.pause()

    return sleep
