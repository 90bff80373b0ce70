from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
import subprocess
import sys

import pytest

from tune_cache.errors import (
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
)
from tune_cache.probes.metrics import Score
from tune_cache.probes.result import Prediction, ProbeResult
from tune_cache.reports import results as module
from tune_cache.reports.results import RunContext, load_run, newest_runs, save_result

NAN = float("nan")


def result_of(**changed):
    fields = {
        "task": "emotion",
        "kind": "regression",
        "aggregation": "mean",
        "probe": "ridge",
        "layer_asked": "best",
        "layer": "6",
        "params": {"alpha": 10.0},
        "grid": ({"alpha": 10.0}, {"alpha": 1.0}),
        "seed": 1234,
        "metric": "r2",
        "scores": {
            "val": {"r2": Score(value=0.5, low=0.25, high=0.75)},
            "test": {"r2": Score(value=0.125, low=NAN, high=NAN)},
        },
        "n": {"train": 3, "val": 1, "test": 2},
        "n_classes": None,
        "n_features": 8,
        "share_one_segment": 0.5,
        "layer_curve": (("0", NAN), ("6", 0.5)),
        "flags": ("one-segment: 50% of tracks",),
        "warnings": ("odd",),
        "seconds": {"read": 0.1, "fit": 0.2, "predict": 0.3},
        "excluded": {"bad\udcff": "timeout"},
        "predictions": (
            Prediction(
                track_id="v", split="val", group="g", truth=(1.0, 0.1), prediction=(1 / 3, 2.0)
            ),
            Prediction(
                track_id="t\udce9", split="test", group="\udce9", truth=(1.0,), prediction=(0.5,)
            ),
            Prediction(track_id="zz", split="test", group="g", truth="a", prediction="b"),
        ),
    }
    return ProbeResult(**fields | changed)


def context_of(**changed):
    fields = {
        "dataset": "emo",
        "encoder": "mel",
        "seg": "10",
        "store": "seg10-abc.zarr",
        "spec_key": "abc",
        "content_digest": "d1",
        "spec": {"layers": [0, 6]},
        "cost": {"seconds": 12.5, "peak": NAN},
    }
    return RunContext(**fields | changed)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v1" / "results.sqlite"


def test_a_run_is_read_back_as_it_was(path):
    result, context = result_of(), context_of()
    run = load_run(path, save_result(path, result, context))
    assert run.result.to_json() == result.to_json()
    assert sorted(run.result.predictions, key=str) == sorted(result.predictions, key=str)
    assert math.isnan(run.result.scores["test"]["r2"].low)
    assert math.isnan(run.result.layer_curve[0][1])
    assert run.context.spec == {"layers": [0, 6]}
    assert run.context.cost == {"seconds": 12.5, "peak": None}
    assert {"tune_cache", "python", "numpy", "scikit-learn"} <= run.context.versions.keys()
    assert run.created.endswith("+00:00")


def test_a_new_process_reads_what_another_wrote(path):
    run_id = save_result(path, result_of(), context_of())
    code = (
        "import sys; from pathlib import Path\n"
        "from tune_cache.reports.results import load_run, newest_runs\n"
        "path = Path(sys.argv[1])\n"
        "print(len(newest_runs(path, 'emo')), load_run(path, int(sys.argv[2])).result.layer)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path), str(run_id)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == ["1", "6"]


def test_the_newest_run_of_each_configuration_is_shown(path):
    first = save_result(path, result_of(), context_of())
    second = save_result(path, result_of(layer="3"), context_of(content_digest="d2"))
    assert [run.run_id for run in newest_runs(path)] == [second]
    assert load_run(path, first).result.layer == "6"


@pytest.mark.parametrize(
    ("result", "context"),
    [
        ({"aggregation": "max"}, {}),
        ({"aggregation_options": {"max_segments": 3}}, {}),
        ({"probe": "knn"}, {}),
        ({"layer_asked": "last"}, {}),
        ({"seed": 1}, {}),
        ({"task": "other"}, {}),
        ({}, {"spec_key": "def"}),
        ({}, {"dataset": "gtzan"}),
        ({}, {"pooling": "max"}),
    ],
    ids=str,
)
def test_another_configuration_does_not_replace_the_first(path, result, context):
    save_result(path, result_of(), context_of())
    save_result(path, result_of(**result), context_of(**context))
    assert len(newest_runs(path)) == 2


def test_all_layers_stand_side_by_side(path):
    for layer in ("0", "1", "0"):
        save_result(path, result_of(layer_asked="all", layer=layer), context_of())
    assert [run.result.layer for run in newest_runs(path)] == ["1", "0"]


def test_reports_ask_for_one_dataset_and_task(path):
    save_result(path, result_of(), context_of())
    save_result(path, result_of(task="x"), context_of(dataset="gtzan"))
    assert [run.context.dataset for run in newest_runs(path, "gtzan")] == ["gtzan"]
    assert [run.result.task for run in newest_runs(path, task="x")] == ["x"]
    assert newest_runs(path, "gtzan", "emotion") == []
    assert newest_runs(path.with_name("none.sqlite")) == []
    assert not path.with_name("none.sqlite").exists()


def test_tables_can_be_read_with_plain_sql(path):
    save_result(path, result_of(), context_of())
    with sqlite3.connect(path) as database:
        rows = database.execute(
            "SELECT aggregation, split, value, low FROM runs JOIN scores ON id = run_id"
            " ORDER BY split"
        ).fetchall()
        truth = database.execute("SELECT truth FROM predictions WHERE track_id = 'v'").fetchone()
    database.close()
    assert rows == [("mean", "test", 0.125, None), ("mean", "val", 0.5, 0.25)]
    assert json.loads(truth[0]) == [1.0, 0.1]


def test_writers_in_several_processes_lose_nothing(path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_results import context_of, result_of, save_result\n"
        "for n in range(10):\n"
        "    save_result(Path(sys.argv[1]), result_of(seed=n), context_of(dataset=sys.argv[3]))"
    )
    here = str(__import__("pathlib").Path(__file__).parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), here, name]) for name in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    runs = newest_runs(path)
    assert len(runs) == 20
    assert len(newest_runs(path, "a")) == len(newest_runs(path, "b")) == 10
    assert all(len(load_run(path, run.run_id).result.predictions) == 3 for run in runs[::7])


def test_a_run_is_written_whole_or_not_at_all(path):
    save_result(path, result_of(), context_of())
    twice = result_of().predictions[:1] * 2
    with pytest.raises(StoreError):
        save_result(path, result_of(predictions=twice, seed=9), context_of())
    assert len(newest_runs(path)) == 1


def test_a_lock_held_too_long_is_an_error_with_a_remedy(path, monkeypatch):
    save_result(path, result_of(), context_of())
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked") as caught:
        save_result(path, result_of(), context_of())
    assert "wait" in caught.value.hint
    other.close()


def test_files_that_are_not_ours_are_refused_and_kept(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be looked at" * 30)
    with pytest.raises(StoreCorruptError, match="not a results file"):
        save_result(path, result_of(), context_of())
    assert path.read_bytes().startswith(b"not a database")
    other = path.with_name("other.sqlite")
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()
    with pytest.raises(StoreMismatchError, match="something else"):
        save_result(other, result_of(), context_of())


def test_a_newer_schema_is_refused(path):
    save_result(path, result_of(), context_of())
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    with pytest.raises(StoreMismatchError, match="schema 99, expected at most 1"):
        newest_runs(path)


def test_an_unknown_run_is_not_found(path):
    with pytest.raises(StoreNotFoundError, match="no run 7"):
        load_run(path, 7)
    save_result(path, result_of(), context_of())
    with pytest.raises(StoreNotFoundError, match="no run 7"):
        load_run(path, 7)


def test_a_record_with_unknown_fields_is_from_another_version(path):
    run_id = save_result(path, result_of(), context_of())
    database = sqlite3.connect(path)
    database.execute("""UPDATE runs SET result = '{"new": 1}'""")
    database.commit()
    with pytest.raises(StoreMismatchError, match="result cannot be read"):
        load_run(path, run_id)
    database.execute("""UPDATE runs SET context = '{"new": 1}'""")
    database.commit()
    database.close()
    with pytest.raises(StoreMismatchError, match="cannot be read"):
        newest_runs(path)


def test_results_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        result_of().seed = 2
