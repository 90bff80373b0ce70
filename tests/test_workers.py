from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from work_functions import make_adder, make_thread_counter

from tune_cache.errors import TaskError, TuneCacheError
from tune_cache.probes.workers import jobs_for, run_all


@pytest.fixture(autouse=True)
def _nobody_stays():
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_comes_back_with_its_place(jobs):
    items = [1, 2, "refused", 4]
    found = dict(run_all(make_adder, (10,), items, jobs=jobs))
    assert sorted(found) == [0, 1, 2, 3]
    assert [found[place][0] for place in (0, 1, 3)] == [11, 12, 14]
    assert isinstance(found[2], TaskError)
    assert found[2].hint == "leave it out"
    here = os.getpid()
    assert all((found[place][1] == here) == (jobs == 1) for place in (0, 1, 3))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_defect_ends_everything(jobs):
    with pytest.raises(ZeroDivisionError):
        list(run_all(make_adder, (1,), ["defect", 1, 2], jobs=jobs))


def test_a_process_that_dies_is_an_error_with_a_remedy():
    with pytest.raises(TuneCacheError, match="ended unexpectedly") as caught:
        list(run_all(make_adder, (1,), ["killed", 1], jobs=2))
    assert "--jobs" in caught.value.hint


def test_what_ends_a_process_group_never_reaches_a_process_of_the_sweep():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    items = [signal.SIGTERM, signal.SIGINT]
    found = dict(run_all(make_adder, (0,), items, jobs=2))
    assert [found[place][0] for place in (0, 1)] == items
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_caller_that_stops_listening_stops_the_processes():
    results = run_all(make_adder, (1,), list(range(50)), jobs=2)
    next(results)
    assert len(multiprocessing.active_children()) == 2
    results.close()


def test_each_process_has_one_thread_in_every_library():
    ((_, threads),) = [
        found for found in run_all(make_thread_counter, (), [0, 1], jobs=2) if found[0] == 0
    ]
    assert threads
    assert set(threads) == {1}


def test_few_items_are_not_worth_a_process():
    assert jobs_for(None, 0) == 1
    assert jobs_for(None, 7) == 1
    assert jobs_for(None, 10_000) >= 1
    assert jobs_for(4, 100) == 4
    assert jobs_for(4, 2) == 2
    assert jobs_for(4, 0) == 1


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfd_open exists on Linux only")
def test_processes_end_with_the_one_that_started_them_even_if_it_is_killed():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from work_functions import make_sleeper\n"
        "from tune_cache.probes.workers import run_all\n"
        "if __name__ == '__main__':\n"
        "    list(run_all(make_sleeper, (), [0, 1], jobs=2))\n"
    )
    here = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", code, here],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        try:
            workers = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
        finally:
            parent.kill()
    for worker in workers:
        ended, _, _ = select.select([worker], [], [], 60)
        os.close(worker)
        assert ended
