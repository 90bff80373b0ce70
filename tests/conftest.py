"""Fixtures that several modules share."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import world.py and the contracts by name


MEMORY = Path("/dev/shm")
ROOM_BYTES = 8 << 30  # the suite leaves up to 2 GB at once


def pytest_configure(config: pytest.Config) -> None:
    """One thread a process; and work in memory where there is plenty: much of the time is fsync.

    What a lost power leaves is told by a model, from the calls: no test needs a real disk.
    Whoever wants one sets TMPDIR or --basetemp.
    """
    if hasattr(config, "workerinput"):
        return
    if (config.getoption("numprocesses", None) or 1) > 1:
        for library in ("OMP", "OPENBLAS", "MKL"):  # several processes' threads fight each other
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    if config.option.basetemp or "TMPDIR" in os.environ:
        return
    if MEMORY.is_dir() and min(_free_bytes()) >= ROOM_BYTES:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # it may have been asked for already


def _free_bytes() -> tuple[int, int]:
    """Room on the file system in memory, and memory itself."""
    text = Path("/proc/meminfo").read_text("ascii")
    kilobytes = int(text.partition("MemAvailable:")[2].split()[0])
    return shutil.disk_usage(MEMORY).free, kilobytes << 10


def subset_folder() -> Path | None:
    """The real music beside the checkout (TUNE_SUBSET names another place)."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "soundtrack-subset"
    folder = Path(os.environ.get("TUNE_SUBSET", beside))
    return folder if (folder / "soundtrack.train.jsonl").is_file() else None


@pytest.fixture(scope="session")
def subset() -> Path:
    folder = subset_folder()
    if folder is None:
        pytest.skip("the real-music subset is not beside this checkout (set TUNE_SUBSET)")
    return folder


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory, monkeypatch):
    """No test sees the user's cache, dataset or hub."""
    monkeypatch.setenv("TUNE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "no-cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TUNE_DATASET", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # which pytest-xdist sets: tables would be cut


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A world that nothing happened to, and what its stores hold."""
    from crash import LENGTHS
    from world import World, arrays_of

    world = World.make(tmp_path_factory.mktemp("pristine"), LENGTHS)
    outcome = world.extract(1.0, "full")
    return world, {o.path.name: arrays_of(o.path) for o in outcome}


@pytest.fixture(scope="session")
def steps(pristine, tmp_path_factory):
    """Changes of the disk in one undisturbed extract of that world: operation and path."""
    from crash import steps_of
    from world import ToyEncoder, World

    world = World(tmp_path_factory.mktemp("steps"), ToyEncoder())
    shutil.copytree(pristine[0].audio, world.audio)
    return steps_of(world)


@pytest.fixture(scope="session")
def n_steps(steps):
    return len(steps)
