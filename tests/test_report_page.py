"""``tune report --html`` from audio to a file, and what it does without stores and labels."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil

import pytest
from command_line import tune
from small_dataset import make_home
from test_page import Reader

import tune_cache
from tune_cache.commands.context import open_context
from tune_cache.commands.page import cells_of, page_content, task_results
from tune_cache.commands.training import read_weights, write_weights
from tune_cache.reports.results import load_run, newest_runs, save_result

N_TEST = {"kind": 4, "level": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with stores and results of two lengths, three aggregations and two seeds."""
    home = make_home(tmp_path_factory.mktemp("page") / "home")
    for arguments in (
        ["extract", "--seg", "1", "--seg", "full"],
        ["probe", "--agg", "mean", "--agg", "max", "--layer", "last", "--seed", "1", "--seed", "2"],
        ["probe", "--agg", "mean", "--layer", "best", "--task", "kind"],
        ["probe", "--agg", "mean", "--layer", "last", "--task", "kind", "--shots", "1"],
    ):
        done = tune(home, *arguments)
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def home(made, tmp_path):
    shutil.copytree(made, tmp_path / "home")
    return tmp_path / "home"


def read(home, *arguments):
    done = tune(home, "report", "--html", "out/page.html", *arguments)
    assert done.returncode == 0, done.stderr
    assert "page: out/page.html" in done.stderr
    return Reader((home / "out/page.html").read_text("utf-8"))


def content_of(home, **changed):
    context = open_context(home / "cache", start=home)
    runs = newest_runs(context.layout.results_db, "small")
    dataset = context.dataset("small")
    return page_content(context, runs, {"small": dataset}, name="small", **changed)


def test_the_page_has_every_cell_and_the_scores_of_the_tables(home):
    page = read(home)
    rows = json.loads(tune(home, "report", "--json").stdout)["rows"]
    cells = page.data["cells"]
    n_shots = sum(row["flags"] != [] and "shots" in str(row["flags"]) for row in rows)
    assert [len(some) for some in cells] == [6, 4]
    assert sum(map(len, cells)) * 2 - 2 == len(rows) - max(n_shots, 2)
    kinds = [row for row in rows if row["task"] == "kind" and row["layer_asked"] == "best"]
    for row in kinds:
        assert f"{row['test_accuracy']:.3f}" in page.text
    assert "2 few-shot results" in page.text
    assert "What this page lacks" not in page.text


def test_the_commands_of_the_page_name_its_stores_and_make_its_scores_again(home):
    page = read(home)
    path = home / "cache/v1/results.sqlite"
    before = path.rename(home / "before.sqlite")
    lines = re.findall(r"tune (?:extract|probe) small[^\n]*", "\n".join(page.texts))
    assert len(lines) == 2 + 3
    for line in lines:
        done = tune(home, *shlex.split(line)[1:])
        assert done.returncode == 0, done.stderr
        assert "found" in done.stdout or line.startswith("tune probe")
    first, second = (
        {
            (r.result.task, r.context.seg, r.result.aggregation, r.result.layer_asked,
             r.result.seed): r.result.scores["test"]
            for r in newest_runs(results)
            if r.result.shots is None
        }
        for results in (before, path)
    )  # fmt: skip
    assert second == first


def test_the_map_has_every_track_with_its_split_label_and_prediction(home):
    (kind, level) = content_of(home).maps
    dataset = tune_cache.load_dataset(str(home / "data/small"))
    assert [t.track_id for t in kind.tracks] == [t.track_id for t in dataset.tracks]
    by_id = {t.track_id: t for t in dataset.tracks}
    for track in kind.tracks:
        assert track.split == by_id[track.track_id].split
        assert bool(track.prediction) == (track.split != "train")
        assert track.truth in ("tone", "noise")
        assert (track.is_right is None) == (track.split == "train")
        assert len(track.neighbours) == 5
    assert {t.error is None for t in level.tracks if t.split == "test"} == {False}
    assert level.tracks[0].truth.startswith("loudness ")
    assert level.coloured_by == "loudness"
    right = [t.is_right for t in kind.tracks if t.split == "test"]
    content = content_of(home)
    found = content.tasks[0]
    score = found.verdicts[found.reference].entry.results[0].scores["test"]["accuracy"].value
    assert sum(right) / len(right) == pytest.approx(score)


def test_weights_of_attention_reach_the_tracks_whose_segments_they_are(home, monkeypatch):
    (first, _) = content_of(home).maps
    one = first.tracks[0]
    weights = {one.track_id: [1.0 / one.n_segments] * one.n_segments, "nobody": [1.0]}
    (again, _) = content_of(home, attention=weights).maps
    assert again.tracks[0].weights == tuple(weights[one.track_id])
    assert not any(track.weights for track in again.tracks[1:])
    monkeypatch.chdir(home)
    made = tune_cache.report("small", html="p.html", attention=weights, cache_dir="cache")
    assert made.page is not None
    page = home / made.page
    assert "weights" in Reader(page.read_text("utf-8")).data["maps"][0]


def test_the_file_that_probe_writes_of_attention_is_read_by_task_and_length(home):
    (first, _) = content_of(home).maps
    runs = newest_runs(home / "cache/v1/results.sqlite", "small")
    found = {
        (run.result.task, run.context.seg, run.result.seed): dataclasses.replace(
            run,
            result=dataclasses.replace(
                run.result,
                segment_weights={
                    track.track_id: (run.result.seed / 10,) * track.n_segments
                    for track in first.tracks
                },
            ),
        )
        for run in runs
        if run.result.task == "kind"
    }
    assert write_weights(home / "attention.csv", found.values()) > 0
    kept = read_weights(home / "attention.csv")
    assert {task for _, task, _ in kept} == {"kind"}
    done = tune(home, "report", "--html", "out/page.html", "--attention", "attention.csv")
    assert done.returncode == 0, done.stderr
    maps = Reader((home / "out/page.html").read_text("utf-8")).data["maps"]
    assert ["weights" in one for one in maps] == [True, False]
    assert [len(w) for w in maps[0]["weights"]] == maps[0]["segments"]
    for name, text in (("page.csv", "a,b"), ("gone.csv", None)):
        if text:
            (home / name).write_text(text)
        done = tune(home, "report", "--html", "out/page.html", "--attention", name)
        assert done.returncode == 2
        assert "--attention-out" in done.stderr


def test_a_page_is_made_without_stores(home):
    for folder in (home / "cache/v1").glob("mel/*.zarr"):
        shutil.rmtree(folder)
    page = read(home)
    assert "is not in this cache" in page.text
    assert "What this page lacks" in page.text
    assert page.data["maps"] == []
    assert len(page.data["cells"]) == 2
    assert "Not looked for here" in page.text


def test_a_page_of_all_datasets_needs_no_manifests(home):
    shutil.rmtree(home / "data")
    (home / "tune.toml").write_text('[defaults]\ncache_dir = "cache"\n')
    page = read(home, "--all")
    assert "all datasets" in page.text
    (kind, _) = page.data["maps"]
    assert set(kind["split"]) == {"val", "test"}
    assert "labels of training tracks" in page.text


def test_cells_that_cannot_be_compared_are_scored_and_named(home):
    path = home / "cache/v1/results.sqlite"
    run = next(r for r in newest_runs(path) if r.result.task == "kind" and r.result.shots is None)
    full = load_run(path, run.run_id)
    other = [dataclasses.replace(p, truth="noise") for p in full.result.predictions]
    odd = dataclasses.replace(
        full.result, predictions=tuple(other), layer_asked="0", layer="0",
        scores={s: {n: dataclasses.replace(v, value=0.0) for n, v in some.items()}
                for s, some in full.result.scores.items()},
    )  # fmt: skip
    save_result(path, odd, dataclasses.replace(full.context, cell_key=""))
    content = content_of(home)
    kind = next(found for found in content.tasks if found.task == "kind")
    assert len(kind.verdicts) == 7
    (note,) = kind.notes
    assert "not compared" in note
    assert "other labels" in note
    compared = [v.comparison for v in kind.verdicts]
    assert sum(item is None for item in compared) == 2
    assert note in read(home).text


def test_seeds_go_together_and_layers_of_all_do_not(home):
    runs = newest_runs(home / "cache/v1/results.sqlite", "small", "level")
    assert [len(some) for some in cells_of(runs)] == [2, 2, 2, 2]
    of_all = [
        dataclasses.replace(
            run, result=dataclasses.replace(run.result, layer_asked="all", layer=str(n))
        )
        for n, run in enumerate(runs)
    ]  # fmt: skip
    assert len(cells_of(of_all)) == len(runs)
    only_shots = [
        dataclasses.replace(run, result=dataclasses.replace(run.result, shots=1)) for run in runs
    ]
    assert task_results(open_context(home / "cache", start=home), only_shots, 0.02) is None


def test_comparisons_are_remembered(home, monkeypatch):
    first = content_of(home).tasks
    monkeypatch.setattr("tune_cache.commands.sweep_judging.compare", None)
    monkeypatch.setattr("tune_cache.commands.sweep_judging.score_of", None)
    assert content_of(home).tasks == first


def test_a_file_that_cannot_be_written_is_a_usage_error(home):
    (home / "out").write_text("in the way")
    done = tune(home, "report", "--html", "out/page.html")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_large_datasets_are_thinned_on_the_map_test_tracks_last(monkeypatch):
    from tune_cache.commands import page_stores

    monkeypatch.setattr(page_stores, "MOST_TRACKS", 10)
    names = [f"{split}{n:02}" for split, k in (("a", 30), ("b", 4), ("c", 5)) for n in range(k)]
    splits = {name: {"a": "train", "b": "val", "c": "test"}[name[0]] for name in names}
    kept = page_stores._some(names, splits)
    assert [name for name in kept if name[0] in "bc"] == [n for n in names if n[0] in "bc"]
    assert len(kept) == 10
    assert page_stores._some(names[:10], splits) == names[:10]
