"""Signals to a whole process group at named moments, and decoders that somebody kills."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from command_line import tune
from crash import leftovers, published
from small_dataset import make_small_dataset
from torture import repetitions
from world import ToyEncoder, World, arrays_of, toy_spec

import tune_cache
from tune_cache.audio import process
from tune_cache.cache import plan
from tune_cache.cache.extract import extract_stores
from tune_cache.cache.work import Circumstances, open_pool

UNIT_SECONDS = 8.0  # of the small dataset: some units
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """The ``n``-th step of a kind, or so many steps after it; ``encode`` is one as well."""

    id: str
    step: str
    path: str = ""
    n: int = 1
    later: int = 0


MOMENTS = (  # the default sample is every fifth, round and round
    Moment("a unit is encoded", "encode", n=2),
    Moment("a shard is written", "write", ".building/embeddings"),
    Moment("the journal is begun", "make-folder", "/.seg1-", later=1),
    Moment("a unit is named", "rename", ".safetensors", n=3),
    Moment("the store is complete", "rename", "COMPLETE"),
    Moment("the store is begun", "make-folder", ".building", later=1),
    Moment("a unit is synchronised", "sync", ".safetensors", n=2),
    Moment("the store takes its name", "publish", ".zarr"),
    Moment("the journal is removed", "remove", ".work"),
)
CASES = [(moment, number) for number in SIGNALS for moment in MOMENTS]

# the command line, which signals its own group at a moment, and again while it tidies up
SCRIPT = """
import json, os, sys
from pathlib import Path
from tune_cache import cli
from tune_cache.cache import disk, plan, work
moment, number, plan.UNIT_SECONDS = json.loads(sys.argv.pop(1))
cli.ECHO_SECONDS = 3600
encode = work.encode_unit
told = False
def observe(step, path, data):
    global told
    if step == moment["step"] and moment["path"] in str(path):
        moment["n"] -= 1
    if moment["n"] <= 0:
        moment["later"] -= 1
    if moment["later"] < 0 and (not told or step == "remove"):
        told = True
        os.killpg(0, number)
    return data
def encode_unit(*given):
    observe("encode", Path(), None)
    return encode(*given)
work.encode_unit = encode_unit
with disk.observed(observe):
    cli.main()
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Prefix of a dataset, and what its store holds when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    prefix = make_small_dataset(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "UNIT_SECONDS", UNIT_SECONDS)
        found = tune_cache.extract(prefix, encoder="mel", seg=1, cache_dir=folder / "cache")
    (outcome,) = found.outcomes
    assert outcome.ledger["n_units"] >= 4
    return prefix, {outcome.path.name: arrays_of(outcome.path)}


@pytest.mark.parametrize(
    ("moment", "number"),
    CASES[:: repetitions(5, 1)],
    ids=lambda value: getattr(value, "id", None) or signal.Signals(value).name,
)
def test_a_signal_to_the_group_is_an_interrupt_that_a_rerun_makes_good(
    undisturbed, tmp_path, monkeypatch, moment, number
):
    prefix, expected = undisturbed
    cache = tmp_path / "cache"
    command = ["extract", str(prefix), "--encoder", "mel", "--seg", "1", "--cache-dir", str(cache)]
    order = json.dumps([dataclasses.asdict(moment), number, UNIT_SECONDS])
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, order, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as tuned:
        try:
            _, said = tuned.communicate(timeout=300)
        finally:
            tuned.kill()
    assert tuned.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(tuned.pid, 0)
    assert not [path for path in cache.rglob("*") if path.suffix in {".tmp", ".building"}]
    for path in (cache / "v1/mel").glob("seg*.zarr"):
        assert arrays_of(path) == expected[path.name]
    monkeypatch.setattr(plan, "UNIT_SECONDS", UNIT_SECONDS)
    again = tune(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    stores = {path.name: arrays_of(path) for path in (cache / "v1/mel").glob("*.zarr")}
    assert stores == expected
    assert [path for path in (cache / "v1/mel").glob(".*") if path.suffix != ".lock"] == []


# a worker that gets a signal at its first instruction, and in the first try of every third file
HUNTED_STARTER = """
import json, os, sys
from pathlib import Path
marks, number = Path(os.environ["MARKS"]), int(os.environ["NUMBER"])
if number != 9:
    os.kill(os.getpid(), number)
sys.path[:] = json.loads(sys.argv[1])
from tune_cache.audio import worker
decode = worker.decode
def hunted(path, **settings):
    mark = marks / path.name
    if path.stem[-1] in "0369" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), number)
    return decode(path, **settings)
worker.decode = hunted
worker.main(**json.loads(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL], ids=lambda n: signal.Signals(n).name)
def test_decoders_that_somebody_kills_cost_no_track(pristine, tmp_path, monkeypatch, number):
    source, expected = pristine
    world = World(tmp_path / "world", ToyEncoder())
    shutil.copytree(source.audio, world.audio)
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("MARKS", str(marks))
    monkeypatch.setenv("NUMBER", str(int(number)))
    monkeypatch.setattr(process, "_STARTER", HUNTED_STARTER)
    outcomes = extract_stores(
        world.tracks(),
        [toy_spec(world.encoder, seconds) for seconds in (1.0, "full")],
        layout=world.layout,
        info=world.encoder.info(),
        load=lambda: world.encoder,
        circumstances=Circumstances(workers=2),
        open_decoders=open_pool,
    )
    assert len(list(marks.iterdir())) == 5
    assert [outcome.failed for outcome in outcomes] == [{}, {}]
    assert published(world) == expected
    assert leftovers(world) == []
