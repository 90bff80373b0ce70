"""Run one function over many items in processes of one BLAS thread each.

Conventions
-----------
Processes are spawned, never forked: a fork of a process with BLAS threads may
hang. Each makes its own function; items and results travel. An item that raises
an error of ours costs itself: the error comes back in place of its result; any
other ends everything. Signals that end a whole process group reach the caller
only, which ends the others. Several BLAS threads in several processes fight each
other, hence one each.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tune_cache.errors import TuneCacheError
from tune_cache.signals import deaf

__all__ = ["jobs_for", "run_all"]

Function = Callable[[Any], Any]

ITEMS_A_JOB = 8  # below it a process costs more to start than it saves


def jobs_for(asked: int | None, n_items: int) -> int:
    """Number of processes: as asked for, else the processors that enough items keep busy.

    Examples
    --------
    >>> jobs_for(None, 3), jobs_for(3, 100), jobs_for(3, 2)
    (1, 3, 2)
    """
    n_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    wanted = min(n_processors, n_items // ITEMS_A_JOB) if asked is None else asked
    return max(1, min(wanted, n_items))


def run_all(
    make: Callable[..., Function], given: tuple[Any, ...], items: Sequence[Any], *, jobs: int
) -> Iterator[tuple[int, Any]]:
    """Call a function with every item, in any order.

    Parameters
    ----------
    make, given
        Called once in each process, with these arguments; returns the function.
    jobs
        Processes; one is this process.

    Yields
    ------
    the place of an item and its result, or the :class:`TuneCacheError` it raised
    """
    if jobs == 1:
        function = make(*given)
        for place, item in enumerate(items):
            yield place, _attempt(function, item)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(make, given)
    )
    try:
        with deaf():  # the first order starts all processes
            places: dict[Future[Any], int] = {
                pool.submit(_call, item): place for place, item in enumerate(items)
            }
        while places:
            done, _ = wait(places, return_when=FIRST_COMPLETED)
            for future in done:
                yield places.pop(future), future.result()
        pool.shutdown()
    except BaseException as error:  # a caller that is interrupted waits for no item
        for process in set(multiprocessing.active_children()) - before:
            process.kill()  # nothing of theirs is half done: files appear whole
        # for the pool's thread: whoever else reaps a process takes its exit code from us
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise TuneCacheError(
                "a process of the sweep ended unexpectedly",
                hint="memory may be short: try fewer --jobs; in a script of your own, call it "
                "under `if __name__ == '__main__':`",
            ) from error
        raise


def _attempt(function: Function, item: Any) -> Any:
    try:
        return function(item)
    except TuneCacheError as error:
        return error


_function: Function | None = None  # of a process that run_all started


def _call(item: Any) -> Any:
    if _function is None:
        raise RuntimeError("this process was not set up")
    return _attempt(_function, item)


def _begin(make: Callable[..., Function], given: tuple[Any, ...]) -> None:
    """Set up a process of its own: gone with its parent, one thread."""
    global _function
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    # a limit reaches only the libraries that are loaded: NumPy's, SciPy's and OpenMP's here
    importlib.import_module("sklearn.linear_model")
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of torch, which is not loaded yet
    _function = make(*given)


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)
