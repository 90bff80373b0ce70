"""``tune sweep`` takes what ``tune probe`` takes, scales, shots and leaks too; and it resumes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import tune
from small_dataset import make_small_dataset
from test_probe_command import leaky

import tune_cache
from tune_cache.commands import sweep_cells
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes import sources
from tune_cache.probes.sweep import Evaluator
from tune_cache.reports.results import load_run

TASKS = {"kind", "level"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A dataset of two tasks with stores of 1 s, 2 s and whole tracks."""
    folder = tmp_path_factory.mktemp("sources")
    prefix = make_small_dataset(folder / "data")
    tune_cache.extract(prefix, encoder="mel", seg=[1, 2, "full"], cache_dir=folder / "cache")
    return prefix, folder / "cache"


@pytest.fixture
def world(stores, tmp_path, monkeypatch):
    """The dataset by its name in tune.toml, and a copy of its cache to write to."""
    monkeypatch.chdir(stores[0].parent)
    shutil.copytree(stores[1], tmp_path / "cache")
    return stores[0].name, tmp_path / "cache"


@pytest.fixture
def evaluated(monkeypatch):
    """Cells that are worked out."""
    cells = []

    class Counting(Evaluator):
        def __call__(self, cell):
            cells.append(cell)
            return super().__call__(cell)

    monkeypatch.setattr(sweep_cells, "Evaluator", Counting)
    return cells


def asked(world, **changed):
    prefix, cache = world
    given = {"encoder": "mel", "cache_dir": cache, "layer": "last", "seg": [1, 2], "task": "kind"}
    return prefix, given | changed


def sweep(world, **changed):
    prefix, given = asked(world, **changed)
    return tune_cache.sweep(prefix, jobs=1, **given)


def rows_of(report, world):
    path = world[1] / "v1/results.sqlite"
    return [load_run(path, run.run_id) for table in report.tables for (run,) in table.runs]


def described(runs):
    """All that a row is, without when it was made and what that cost."""
    found = []
    for run in runs:
        result = dataclasses.replace(run.result, seconds={}, cost={})
        where = dataclasses.replace(run.context, cell_key="")
        found.append((where, result))
    return sorted(found, key=str)


@pytest.mark.parametrize(
    "changed",
    [
        {"agg": ["multiscale-mean", "mean", "multiscale-concat"], "seg": [1, 2, "full"]},
        {"agg": "mean+max", "derive": [2, 3]},
        {"agg": ["concat", "mean"], "fill": "mean", "max_segments": 2},
        {"shots": [1, 3], "repeats": 4, "probe": "centroid"},
        {"agg": ["max", "multiscale-mean"], "derive": 2, "shots": 2, "repeats": 2},
    ],
    ids=str,
)
def test_a_sweep_finds_what_a_probe_finds(world, changed):
    found = rows_of(sweep(world, **changed), world)
    prefix, given = asked(world, **changed)
    expected = tune_cache.probe(prefix, **given).runs
    assert described(found) == described(expected)


def test_a_sweep_that_leaves_leaks_out_finds_what_such_a_probe_finds(tmp_path, monkeypatch):
    world = leaky(tmp_path)
    monkeypatch.chdir(world[0].parent)
    tune_cache.extract(world[0], encoder="mel", seg=2, cache_dir=world[1])
    changed = {"task": (), "agg": ["mean", "multiscale-mean"], "drop_leaks": True}
    found = rows_of(sweep(world, **changed), world)
    assert {run.result.excluded["copy.wav"] for run in found} == {"leak: audio"}
    prefix, given = asked(world, **changed)
    assert described(found) == described(tune_cache.probe(prefix, **given).runs)


def test_leaks_are_told_with_every_row_and_refused_if_asked(tmp_path, monkeypatch, evaluated):
    world = leaky(tmp_path)
    monkeypatch.chdir(world[0].parent)
    report = sweep(world, task=(), seg=1, agg=["mean", "max"])
    told = [run.result.warnings for run in rows_of(report, world)]
    assert len(told) == 2
    assert all(any("have the audio file of train" in text for text in some) for some in told)
    evaluated.clear()
    with pytest.raises(TaskError, match=r"splits of task .* leak: .*share a group.*audio file"):
        sweep(world, task=(), seg=1, strict=True)
    assert evaluated == []
    command = ["sweep", str(world[0]), "--encoder", "mel", "--seg", "1", "--cache-dir"]
    command += [str(world[1])]
    assert tune(tmp_path, *command, "--strict").returncode == 1
    done = tune(tmp_path, *command, "--drop-leaks")
    assert done.returncode == 0, done.stderr
    assert "leak: audio: 1" in done.stdout


def test_rows_with_and_without_leaks_are_both_remembered_and_reported(
    tmp_path, monkeypatch, evaluated
):
    world = leaky(tmp_path)
    monkeypatch.chdir(world[0].parent)
    asked_for = {"task": (), "seg": 1, "agg": "mean"}
    plain, honest = sweep(world, **asked_for), sweep(world, drop_leaks=True, **asked_for)
    assert len(evaluated) == 2
    assert sweep(world, **asked_for).n_remembered == plain.n_cells == 1
    assert sweep(world, drop_leaks=True, **asked_for).n_remembered == honest.n_cells == 1
    assert len(evaluated) == 2
    runs = tune_cache.report(world[0], cache_dir=world[1]).runs
    assert sorted("copy.wav" in run.result.excluded for run in runs) == [False, True]


def test_leaks_are_looked_for_once(world, monkeypatch):
    looked = []

    def counted(*arguments, **options):
        looked.append(arguments)
        return find_leaks(*arguments, **options)

    find_leaks = sources.find_leaks
    monkeypatch.setattr(sources, "find_leaks", counted)
    sweep(world, task=())
    assert len(looked) == 2 * len(TASKS)
    sweep(world, task=(), agg="max")
    assert len(looked) == 2 * len(TASKS)
    sweep(world, task=(), strict=True)  # looks however many pairs there are
    assert len(looked) == 4 * len(TASKS)


def test_a_probe_in_between_makes_no_sweep_forget(world, evaluated):
    first = sweep(world, agg=["mean", "max"])
    prefix, given = asked(world, agg=["mean", "max"])
    tune_cache.probe(prefix, **given)
    assert sweep(world, agg=["mean", "max"]).n_remembered == first.n_cells == 4
    assert len(evaluated) == 4


@pytest.mark.parametrize(
    ("changed", "n_new"),
    [
        ({"derive": 2}, 2),  # of 1 s, for two aggregations; 2 s cannot serve
        ({"agg": ["mean", "concat", "multiscale-mean"]}, 1),
        ({"fill": "zero"}, 2),  # concat only
        ({"shots": 1, "repeats": 2}, 4),
        ({"repeats": 3}, 0),  # nothing is drawn
        ({"drop_leaks": True}, 0),  # nothing leaks
    ],
    ids=str,
)
def test_a_changed_setting_costs_its_own_cells_only(world, evaluated, changed, n_new):
    grid = {"agg": ["mean", "concat"], "probe": "centroid"}
    sweep(world, **grid)
    evaluated.clear()
    sweep(world, **grid | changed)
    assert len(evaluated) == n_new
    sweep(world, **grid | changed)
    assert len(evaluated) == n_new


def test_draws_are_told_apart_by_their_number(world, evaluated):
    for repeats in (2, 3, 2):
        sweep(world, shots=1, repeats=repeats)
    assert [cell.repeats for cells in evaluated for cell in cells] == [2, 2, 3, 3]


def test_derived_rows_of_one_run_a_track_are_one(world):
    """4 s hold every track: derived from 1 s, mean, max and concat are one row."""
    report = sweep(world, seg=1, derive=4, agg=["mean", "max", "concat"])
    found = [verdict.entry.aggregations for verdict in report.tables[0].verdicts]
    assert found == [("mean",), ("max",), ("concat",), ("mean", "max", "concat")]
    runs = rows_of(report, world)
    assert [run.result.share_one_segment == 1 for run in runs] == [False, False, False, True]


def test_few_shot_rows_have_a_reference_and_no_comparison(world):
    report = sweep(world, task=(), shots=[1, 2], repeats=2, seed=[1, 2])
    (table,) = report.tables
    assert report.warnings == (
        "task 'level' is regression, and shots are tracks a class: it is left out",
    )
    assert sum(verdict.is_reference for verdict in table.verdicts) == 1
    assert all(verdict.comparison is None for verdict in table.verdicts)
    assert [v.as_good for v in table.verdicts if not v.is_reference] == [None] * 3
    for verdict, runs in zip(table.verdicts, table.runs, strict=True):
        scores = [run.result.scores["test"]["accuracy"].value for run in runs]
        assert verdict.score.value == pytest.approx(sum(scores) / 2)
    done = tune(
        Path.cwd(), "sweep", world[0], "--encoder", "mel", "--cache-dir", str(world[1]),
        "--task", "kind", "--seg", "1", "--shots", "1", "--shots", "2", "--repeats", "2",
        "--layer", "last",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "few-shot results keep no predictions: rows are not compared" in done.stdout
    assert "logistic 2-shot" in done.stdout
    assert "chosen" in done.stdout


def test_a_comparison_tells_derived_rows_and_rows_without_leaks(tmp_path, monkeypatch):
    """And never takes two of one seed for two seeds of one configuration."""
    world = leaky(tmp_path)
    monkeypatch.chdir(world[0].parent)
    for changed in ({}, {"drop_leaks": True}):
        sweep(world, task=(), seg=1, derive=2, agg=["mean", "max"], **changed)
    (pair,) = tune_cache.compare(world[0], agg=["mean", "max"], cache_dir=world[1]).pairs
    assert (len(pair.first), len(pair.second)) == (1, 1)
    runs = tune_cache.report(world[0], cache_dir=world[1]).runs
    (derived,) = [
        run.run_id
        for run in runs
        if run.result.aggregation_options
        and run.result.aggregation == "mean"
        and run.result.excluded
    ]
    (plain,) = [
        run.run_id
        for run in runs
        if not run.result.aggregation_options
        and run.result.aggregation == "mean"
        and not run.result.excluded
    ]
    done = tune(
        tmp_path, "compare", "--run", str(derived), "--run", str(plain),
        "--cache-dir", str(world[1]),
    )  # fmt: skip
    assert (
        "A mel, seg 1, mean(derive=2), logistic, layer 3, seed 1234, without leaks" in done.stdout
    )
    assert "B mel, seg 1, mean, logistic, layer 3, seed 1234\n" in done.stdout


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"agg": "multiscale-mean", "seg": 1}, UsageError, "needs two segment lengths or more"),
        ({"agg": "concat", "fill": "ones"}, UsageError, "fill is 'ones'"),
        ({"agg": "concat", "max_segments": 0}, UsageError, "max_segments is 0"),
        ({"shots": 0}, UsageError, "shots are 0"),
        ({"shots": 1, "repeats": 0}, UsageError, "repeats 0"),
        ({"shots": 1, "task": "level"}, TaskError, "'level' is regression: shots are"),
    ],
    ids=str,
)
def test_a_mistake_is_found_before_anything_is_encoded(world, changed, error, match):
    shutil.rmtree(world[1] / "v1/mel")
    with pytest.raises(error, match=match) as caught:
        sweep(world, extract_missing=True, **changed)
    assert not list((world[1] / "v1").glob("mel/seg*.zarr"))
    assert str(caught.value)


def test_lengths_that_cut_alike_are_no_two_scales(world):
    with pytest.raises(UsageError, match="needs two segment lengths or more") as caught:
        sweep(world, agg="multiscale-mean", seg=[60, "full"])
    assert "lengths that cut every track alike are one" in caught.value.hint


def test_a_length_that_no_store_divides_is_refused(world, evaluated):
    with pytest.raises(UsageError, match="no store serves to derive segments of 5 s"):
        sweep(world, seg=[2, "full"], derive=[4, 5])
    assert evaluated == []


KILLED = """
import os, signal, sys
import tune_cache
from tune_cache.reports import results

prefix, cache, where, jobs = sys.argv[1:]
left = 100

def die(*seen):
    os.kill(os.getpid(), signal.SIGKILL)

def cell_done(n_done, n_cells):
    if n_done == 3 and where == "between cells":
        die()

if where == "inside a transaction":
    without_nan = results.without_nan
    def counting(value):
        global left
        left -= 1
        return without_nan(value) if left else die()
    results.without_nan = counting
if __name__ == "__main__":
    tune_cache.sweep(prefix, encoder="mel", cache_dir=cache, layer="last", seg=[1, 2],
                     task="kind", agg=["mean", "max", "concat"], jobs=int(jobs), on_cell=cell_done)
    print("ended")
"""


@pytest.mark.parametrize(
    ("where", "jobs"),
    [("between cells", 1), ("between cells", 2), ("inside a transaction", 1)],
    ids=str,
)
def test_a_killed_sweep_resumes_and_finds_the_same(world, stores, evaluated, tmp_path, where, jobs):
    """kill -9: what was saved counts, what was half saved does not."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    ended = subprocess.run(
        [sys.executable, str(script), str(world[0]), str(world[1]), where, str(jobs)],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, ""), ended.stderr
    grid = {"agg": ["mean", "max", "concat"]}
    report = sweep(world, **grid)
    assert 0 < report.n_remembered < report.n_cells == 6
    assert len(evaluated) == report.n_cells - report.n_remembered
    if where == "between cells":
        assert report.n_remembered == 3
    whole = tmp_path / "whole"
    shutil.copytree(stores[1], whole)
    assert described(rows_of(report, world)) == described(
        rows_of(sweep((world[0], whole), **grid), (world[0], whole))
    )
    assert sweep(world, **grid).n_remembered == 6


def test_rows_tell_options_and_shots_to_programs(world):
    done = tune(
        Path.cwd(), "sweep", world[0], "--encoder", "mel", "--cache-dir", str(world[1]),
        "--task", "kind", "--seg", "1", "--derive", "2", "--layer", "last", "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)["rows"]
    assert [row["aggregation_options"] for row in found] == [{}, {"derive": 2}]
    for row in found:
        assert row["seconds_fit"] > 0
        assert row["peak_fit_bytes"] > 0
        assert row["seconds_predict_per_1000"] > 0
