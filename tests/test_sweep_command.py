"""``tune sweep`` and ``tune compare`` on a small dataset, from audio to tables."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest
from command_line import tune
from small_dataset import make_small_dataset
from test_cold_start import modules_after

import tune_cache
from tune_cache.commands import memory, sweep_cells, sweep_jobs, sweep_judging
from tune_cache.errors import (
    StoreAmbiguousError,
    StoreMismatchError,
    StoreNotFoundError,
    TaskError,
    TuneCacheError,
    UsageError,
)
from tune_cache.probes.compare import compare
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.sweep import Evaluator
from tune_cache.probes.workers import run_all
from tune_cache.reports.results import load_run, newest_runs

LENGTHS = (1.0, 10.0, "full")  # no track is longer than 3.5 s: 10 s and full cut alike
GRID = {"seg": LENGTHS, "agg": ["mean", "max", "concat"], "layer": "last"}
TASKS = {"kind", "level"}
N_TRACKS, N_TEST = 48, 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset and a cache that a first sweep filled."""
    folder = tmp_path_factory.mktemp("sweep")
    make_small_dataset(folder / "data", n_tracks=N_TRACKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "data")
        report = tune_cache.sweep(
            "small", encoder="mel", extract_missing=True, cache_dir=folder / "cache", **GRID
        )
    return folder, report


@pytest.fixture
def world(made, tmp_path, monkeypatch):
    """A copy to change; the working directory is the dataset's, where its tune.toml lies."""
    shutil.copytree(made[0], tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w" / "data")
    return tmp_path / "w"


@pytest.fixture
def evaluated(monkeypatch):
    """Cells that were worked out, and comparisons."""
    cells, compared = [], []

    class Counting(Evaluator):
        def __call__(self, some):
            cells.extend(some)
            return super().__call__(some)

    def counted(*sides, **settings):
        compared.append(sides)
        return compare(*sides, **settings)

    monkeypatch.setattr(sweep_cells, "Evaluator", Counting)
    monkeypatch.setattr(sweep_judging, "compare", counted)
    return cells, compared


def again(world, **changed):
    return tune_cache.sweep(
        "small",
        **{"encoder": "mel", "cache_dir": world / "cache", "jobs": 1, **GRID, **changed},
    )


def numbers(report):
    """All that a table says, without what depends on when it was made."""
    return [
        (table.task, v.entry.segs, v.entry.aggregations, v.score, v.comparison, v.p_holm, v.as_good)
        for table in report.tables
        for v in table.verdicts
    ]


def test_lengths_that_cut_alike_are_encoded_once_and_are_one_row(made):
    folder, report = made
    stores = sorted(path.name.split("-")[0] for path in (folder / "cache/v1/mel").glob("seg*.zarr"))
    assert stores == ["seg1", "seg10"]
    rows = {(v.entry.segs, v.entry.aggregations) for t in report.tables for v in t.verdicts}
    assert rows == {
        (("1",), ("mean",)),
        (("1",), ("max",)),
        (("1",), ("concat",)),
        (("10", "full"), ("mean", "max", "concat")),
    }
    assert {table.task for table in report.tables} == TASKS
    assert report.n_cells == 4 * len(TASKS)


def test_the_reference_is_what_validation_chose_and_is_not_corrected(made):
    for table in made[1].tables:
        values = [verdict.entry.validation() for verdict in table.verdicts]
        (reference,) = [verdict for verdict in table.verdicts if verdict.is_reference]
        assert reference.entry.validation() == max(values)
        others = [verdict for verdict in table.verdicts if not verdict.is_reference]
        assert len(others) == 3  # duplicates are no comparisons
        assert max(v.p_holm for v in others) <= 1
        assert all(v.p_holm >= v.comparison.p for v in others)
        smallest = min(others, key=lambda v: v.comparison.p)
        assert smallest.p_holm == pytest.approx(min(1.0, 3 * smallest.comparison.p))


def test_a_repeated_sweep_reads_everything(world, evaluated, made):
    report = again(world)
    assert evaluated == ([], [])
    assert report.n_remembered == report.n_cells == 8
    assert numbers(report) == numbers(made[1])


def test_an_interrupted_sweep_resumes(world, evaluated, made):
    (world / "cache/v1/results.sqlite").unlink()

    class StopError(Exception):
        pass

    def stop(n_done, n_cells):
        assert n_cells == 8
        if n_done == 3:
            raise StopError

    with pytest.raises(StopError):
        again(world, on_cell=stop)
    assert len(evaluated[0]) == 3
    report = again(world)
    assert len(evaluated[0]) == 8
    assert report.n_remembered == 3
    assert numbers(report) == numbers(made[1])


def test_processes_find_what_one_process_finds(world, made):
    (world / "cache/v1/results.sqlite").unlink()
    shutil.rmtree(world / "cache/v1/comparisons")
    report = again(world, jobs=2)
    assert report.n_remembered == 0
    assert numbers(report) == numbers(made[1])


def rewrite(world, split, change):
    path = world / "data" / f"small.{split}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


def relabelled(rows):
    rows[0]["label"] = {"tone": "noise", "noise": "tone"}[rows[0]["label"]]
    return rows


def regrouped(rows):
    for row in rows:
        row["ori_uid"] = "one song"
    return rows


def test_a_changed_label_is_noticed_and_costs_its_own_task_only(world, evaluated):
    rewrite(world, "test", relabelled)
    report = again(world)
    assert {cell.source.task for cell in evaluated[0]} == {"kind"}
    assert (len(evaluated[0]), report.n_remembered) == (4, 4)
    assert {cell[0].task for cell, _ in evaluated[1]} == {"kind"}


def test_a_changed_group_is_noticed(world, evaluated):
    rewrite(world, "test", regrouped)
    again(world)
    assert len(evaluated[0]) == 8


def test_a_changed_split_is_noticed(world, evaluated):
    moved = []
    rewrite(world, "train", lambda rows: moved.append(rows.pop()) or rows)
    rewrite(world, "test", lambda rows: rows + moved)
    again(world)
    assert len(evaluated[0]) == 8


def test_a_changed_store_is_noticed(world, evaluated, made):
    """Other audio under the same names: another store, other vectors."""
    audio = sorted((world / "data/audio").glob("*.wav"))
    audio[0].write_bytes(audio[1].read_bytes())
    with pytest.raises(StoreNotFoundError, match="are missing: 1, 10 = full"):
        again(world)
    report = again(world, extract_missing=True)
    assert len(evaluated[0]) == 8
    assert numbers(report) != numbers(made[1])


@pytest.mark.parametrize(
    ("changed", "n_new"),
    [
        ({"seed": 7}, 8),
        ({"layer": "0"}, 8),
        ({"max_segments": 2}, 2),  # of concat over 1 s, in two tasks
        ({"probe": "knn"}, 8),
        ({"agg": ["mean", "max", "concat", "std"]}, 4),
        ({"seed": [1234, 7]}, 8),
    ],
    ids=str,
)
def test_a_changed_setting_is_noticed_and_costs_its_own_cells_only(
    world, evaluated, changed, n_new
):
    again(world, **changed)
    assert len(evaluated[0]) == n_new


def test_a_damaged_memory_costs_time_only(world, evaluated, made):
    for path in (world / "cache/v1/comparisons").iterdir():
        path.write_text("{")
    report = again(world)
    assert len(evaluated[1]) == 6
    assert numbers(report) == numbers(made[1])
    (world / "cache/v1/results.sqlite").write_bytes(b"no database" * 200)
    report = again(world)
    assert report.n_remembered == 0
    assert any("earlier results are not used" in warning for warning in report.warnings)
    assert any("results are not saved" in warning for warning in report.warnings)
    assert numbers(report) == numbers(made[1])


def test_seeds_that_change_nothing_are_one_cell_in_the_table(world, made):
    report = again(world, seed=[1234, 7])
    (table,) = [table for table in report.tables if table.task == "kind"]
    assert [len(verdict.entry.results) for verdict in table.verdicts] == [2] * 4
    assert all(v.comparison.n_seeds == 1 for v in table.verdicts if v.comparison)
    assert all(v.entry.seed_deviation() == 0 for v in table.verdicts)


def test_seeds_of_a_trained_probe_are_worked_out_together_and_remembered(world, evaluated, made):
    cells, _ = evaluated
    asked = {"seg": 1, "agg": "mean", "layer": "0", "probe": "mlp", "seed": (1, 2)}
    one = again(world, checkpoint="last", **asked)
    assert (len(cells), one.n_cells, one.n_remembered) == (4, 4, 0)  # two tasks
    assert numbers(again(world, checkpoint="last", **asked)) == numbers(one)
    assert len(cells) == 4
    other = again(world, **asked | {"seed": 2})
    assert (other.n_remembered, len(cells)) == (0, 6)  # another checkpoint is another cell


def test_a_cell_that_fails_costs_itself(world, evaluated, monkeypatch):
    def refusing(*arguments, aggregation, **settings):
        if aggregation == "concat":
            raise TaskError("concat is too large", hint="max_segments=2 would fit")
        return run_probe(*arguments, aggregation=aggregation, **settings)

    monkeypatch.setattr("tune_cache.probes.evaluate.run_probe", refusing)
    report = again(world, seed=7)
    assert report.failed == (
        ("kind: seg 1, concat, logistic, layer last, seed 7", "concat is too large"),
        ("level: seg 1, concat, ridge, layer last, seed 7", "concat is too large"),
    )
    assert [len(table.verdicts) for table in report.tables] == [3, 3]
    with pytest.raises(TaskError, match="concat is too large"):
        again(world, seed=7, agg="concat", seg=1)
    command = ["sweep", "small", "--cache-dir", str(world / "cache"), "--encoder", "mel"]
    done = tune(world / "data", *command, "--seed", "7", "--agg", "mean", "--agg", "concat")
    assert done.returncode == 3
    assert "no result: kind: seg 1, concat, logistic" in done.stderr
    assert "small · level" in done.stdout


def test_a_cell_that_does_not_fit_into_memory_costs_itself(world, monkeypatch):
    def short(*arguments, aggregation, **settings):
        if aggregation == "concat":
            raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried\nmore")
        return run_probe(*arguments, aggregation=aggregation, **settings)

    released = []
    monkeypatch.setattr("tune_cache.probes.evaluate.run_probe", short)
    monkeypatch.setattr("tune_cache.probes.sweep.release_cached_memory", lambda: released.append(1))
    report = again(world, seed=7, seg=1, agg=["mean", "concat"], task="kind")
    assert report.failed == (
        (
            "kind: seg 1, concat, logistic, layer last, seed 7",
            "this cell does not fit into memory: CUDA out of memory. Tried",
        ),
    )
    assert len(report.tables[0].verdicts) == 1
    assert released == [1]


def test_another_error_of_a_cell_ends_the_sweep(world, monkeypatch):
    def failing(*arguments, **settings):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("tune_cache.probes.evaluate.run_probe", failing)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        again(world, seed=7, seg=1, agg="mean")


def test_a_gpu_that_trains_is_used_by_one_process(world, monkeypatch):
    seen = []

    def one_process(make, given, items, *, jobs):
        seen.append((jobs, given[-1]))
        return run_all(make, given, items, jobs=1)

    monkeypatch.setattr(sweep_cells, "run_all", one_process)
    monkeypatch.setattr(sweep_jobs, "likely_device", lambda name: "cuda")
    for probe in ("centroid", "mlp"):
        again(world, seg=1, agg=["mean", "max"], layer="0", task="kind", probe=probe, jobs=2)
    assert seen == [(2, 2), (1, 1)]


def test_a_perceptron_is_trained_where_it_was_asked_for(world):
    asked = {"seg": 1, "agg": "mean", "layer": "0", "task": "kind", "probe": "mlp"}
    with pytest.raises(UsageError, match="'cuda:99' is not here"):
        again(world, device="cuda:99", **asked)


def test_memory_of_a_gpu_is_given_back_between_the_stores_and_the_cells(world, monkeypatch):
    happened = []
    monkeypatch.setattr(
        "tune_cache.commands.sweep.release_cached_memory", lambda: happened.append("released")
    )
    monkeypatch.setattr(
        "tune_cache.commands.sweep.run_cells", lambda *_, **__: happened.append("cells") or 1 / 0
    )
    for missing in (False, True):
        happened.clear()
        with pytest.raises(ZeroDivisionError):
            again(world, seg=2 if missing else 1, agg="mean", extract_missing=True)
        assert happened == ["released"] * missing + ["cells"]


def test_missing_stores_are_listed_with_their_cost_and_nothing_is_done(world, evaluated):
    listed = []
    with pytest.raises(StoreNotFoundError, match="missing: 2") as caught:
        again(world, seg=[1, 2, 10], on_missing=listed.extend)
    assert caught.value.hint.startswith("add --extract-missing, or make them with `tune extract")
    assert "--encoder mel --cache-dir" in caught.value.hint
    assert caught.value.hint.endswith(" --seg 2`")
    assert evaluated == ([], [])
    (grid,) = listed
    assert (grid.labels, grid.store) == (("2",), None)
    tracks = tune_cache.load_dataset("small").tracks
    seconds = sum(track.duration_seconds for track in tracks)
    assert 0.9 * seconds < grid.audio_seconds < seconds  # tails below a second are not encoded
    assert grid.n_segments > len(tracks)
    assert grid.ahead.work.n_encode == N_TRACKS
    assert grid.ahead.n_bytes > 0
    assert grid.encode_seconds > 0


def test_missing_lengths_that_cut_alike_are_listed_once_without_any_store(world):
    shutil.rmtree(world / "cache/v1/mel")
    listed = []
    with pytest.raises(StoreNotFoundError, match="missing: 1, 10 = full"):
        again(world, on_missing=listed.extend)
    assert [grid.n_segments for grid in listed][1] == N_TRACKS


def test_a_length_that_cuts_like_a_store_at_hand_is_not_missing(world, evaluated):
    report = again(world, seg=[1, 5, 60])
    assert {v.entry.segs for v in report.tables[0].verdicts} == {("1",), ("5", "60")}
    assert evaluated[0] == []  # the same vectors under another length are the same cells


def test_without_lengths_every_store_at_hand_is_swept(world):
    report = again(world, seg=())
    assert {v.entry.segs for v in report.tables[0].verdicts} == {("1",), ("10",)}
    shutil.rmtree(world / "cache/v1/mel")
    with pytest.raises(StoreNotFoundError, match="no store of encoder 'mel'") as caught:
        again(world, seg=())
    assert "--extract-missing" in caught.value.hint


def test_another_encoder_is_used_only_where_it_is_the_only_one_and_that_is_said(world):
    report = again(world, encoder=None)
    assert report.encoder == "mel"
    assert "encoder 'muq' has no store of these tracks; 'mel' has, and is used" in report.warnings


def test_of_several_encoders_at_hand_none_is_guessed(world):
    shutil.copytree(world / "cache/v1/mel", world / "cache/v1/other")
    with pytest.raises(StoreAmbiguousError, match="several encoders") as caught:
        again(world, encoder=None)
    assert caught.value.hint == "choose one, as --encoder mel"


def test_of_two_encodings_of_a_length_none_is_guessed(world):
    tune_cache.extract("small", encoder="mel", seg=1.0, dtype="f4", cache_dir=world / "cache")
    with pytest.raises(StoreAmbiguousError, match="2 encodings of segment length 1") as caught:
        again(world)
    assert "tune cache rm" in caught.value.hint
    report = again(world, seg=[10])  # no reason against a length that is clear
    assert {v.entry.segs for v in report.tables[0].verdicts} == {("10",)}


def test_tags_are_swept_and_compared_in_processes(world):
    for split in ("train", "val", "test"):
        rewrite(world, split, tagged)
    config = world / "data/tune.toml"
    config.write_text(
        '[datasets.small]\nmanifests = "small"\n[datasets.small.tasks.tags]\nlabel = "tags"\n'
    )
    report = again(world, jobs=2)
    (table,) = report.tables
    assert {v.entry.metric for v in table.verdicts} == {"roc_auc"}
    (reference,) = [v for v in table.verdicts if v.is_reference]
    for verdict in table.verdicts:
        if verdict.comparison is not None:
            found = verdict.comparison
            assert found.test == "permutation"
            assert found.first == pytest.approx(verdict.score.value)
            assert found.second == pytest.approx(reference.score.value)
    assert again(world, jobs=2).n_remembered == report.n_cells
    assert numbers(again(world)) == numbers(report)


def tagged(rows):
    """What sounds, and whether it is loud: two tags that are on some tracks."""
    for row in rows:
        row["tags"] = [row["label"]] + ["loud"] * (row["level"][0] > -1.5)
    return rows


def test_the_settings_file_gives_axes_and_a_preset_wins_over_it(world):
    config = world / "data/tune.toml"
    text = config.read_text()
    config.write_text(
        text + '[defaults]\nseg = [1]\nagg = ["max", "mean"]\nlayer = [0]\nmargin = 0.5\njobs = 1\n'
    )
    report = again(world, seg=(), agg=(), layer=(), jobs=None)
    assert {table.margin for table in report.tables} == {0.5}
    found = {(v.entry.segs, v.entry.aggregations) for v in report.tables[0].verdicts}
    assert found == {(("1",), ("max",)), (("1",), ("mean",))}
    assert {r.layer_asked for v in report.tables[0].verdicts for r in v.entry.results} == {"0"}
    report = again(world, seg=(), agg=(), layer=(), preset="tune-paper")
    found = {v.entry.aggregations for v in report.tables[0].verdicts}
    assert found == {("concat", "mean", "max"), ("transformer",)}
    assert {r.layer_asked for v in report.tables[0].verdicts for r in v.entry.results} == {"last"}


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"agg": "meen"}, UsageError, "'meen'"),
        ({"probe": "forest"}, UsageError, "'forest'"),
        ({"probe": "logistic", "task": "level"}, TaskError, "cannot learn"),
        ({"task": "mood"}, UsageError, "no task 'mood'"),
        ({"margin": 0.0}, UsageError, "margin is 0.0"),
        ({"jobs": 0}, UsageError, "--jobs is 0"),
        ({"preset": "paper"}, UsageError, "preset is 'paper'"),
    ],
    ids=str,
)
def test_a_mistake_is_found_before_anything_is_encoded(world, changed, error, match):
    shutil.rmtree(world / "cache/v1/mel")
    with pytest.raises(error, match=match):
        again(world, extract_missing=True, **changed)
    assert not list((world / "cache/v1").glob("mel/seg*.zarr"))


def one_class(rows):
    return [row | {"label": "tone"} for row in rows]


@pytest.mark.parametrize(
    ("split", "change", "shots", "match"),
    [
        ("train", one_class, (), "'kind' has one class in train, 'tone'"),
        ("test", lambda rows: [row | {"label": None} for row in rows], (), "no test track to use"),
        ("val", None, 1, "no validation split, which a choice with few shots needs"),
    ],
    ids=["one class", "nothing to test", "shots without validation"],
)
def test_labels_that_support_no_probe_are_found_before_anything_is_encoded(
    world, split, change, shots, match
):
    if change is None:
        (world / "data" / f"small.{split}.jsonl").unlink()
    else:
        rewrite(world, split, change)
    shutil.rmtree(world / "cache/v1/mel")
    with pytest.raises(TaskError, match=match):
        again(world, extract_missing=True, task="kind", shots=shots)
    assert not list((world / "cache/v1").glob("mel/seg*.zarr"))


def test_a_preset_is_a_grid_that_flags_overrule(world):
    report = again(world, preset="tune-paper", agg=(), layer=(), seg=())
    (table, _) = report.tables
    assert {v.entry.segs for v in table.verdicts} == {("10", "30", "60", "full")}
    aggregations = {v.entry.aggregations for v in table.verdicts}
    assert aggregations == {("concat", "mean", "max"), ("transformer",)}
    assert {r.layer_asked for v in table.verdicts for r in v.entry.results} == {"last"}
    (alone,) = [v for v in table.verdicts if v.entry.aggregations == ("transformer",)]
    flags = alone.entry.results[0].flags
    assert any("the transformer maps one vector" in text for text in flags)
    report = again(world, preset="tune-paper", agg=(), layer="0", seg=1)
    assert {v.entry.segs for v in report.tables[0].verdicts} == {("1",)}
    assert {r.layer for v in report.tables[0].verdicts for r in v.entry.results} == {"0"}


def test_every_cell_is_a_result_that_report_shows(world):
    runs = newest_runs(world / "cache/v1/results.sqlite", "small")
    assert len(runs) == 8
    assert len({run.context.cell_key for run in runs}) == 8
    loaded = load_run(world / "cache/v1/results.sqlite", runs[0].run_id)
    assert loaded.result.predictions


def test_the_command_line_prints_a_table_a_task_and_one_object(world):
    command = ["sweep", "small", "--cache-dir", str(world / "cache")]
    command += ["--encoder", "mel", "--layer", "last", "--seg", "1", "--seg", "10", "--seg", "full"]
    for name in GRID["agg"]:
        command += ["--agg", name]
    done = tune(world / "data", *command)
    assert done.returncode == 0, done.stderr
    assert "8 cells: 8 known, 0 worked out" in done.stderr
    for text in (
        "small · kind: accuracy on test [95 % interval]",
        "small · level: r2 on test",
        "10 = full",
        "chosen",
        "Holm over 3 comparisons",
        "good: loses less than 0.02",
        "fewer than 20 groups cannot tell",
        f"the smallest difference that {N_TEST} test tracks would show",
        "encoded and counted once",
    ):
        assert text in done.stdout
    found = json.loads(tune(world / "data", *command, "--json").stdout)
    assert found["command"] == "sweep"
    assert len(found["rows"]) == 8
    (same,) = [row for row in found["rows"] if row["same_seg"] and row["task"] == "kind"]
    assert (same["seg"], same["same_seg"]) == ("10", ["full"])
    assert same["same_aggregation"] == ["max", "concat"]
    assert sum(row["is_reference"] for row in found["rows"]) == 2
    failed = tune(world / "data", *command, "--seg", "2")
    assert failed.returncode == 1
    assert "missing stores: 1\n  seg 2: " in failed.stderr
    assert failed.stdout == ""


def test_a_sweep_of_stores_at_hand_loads_neither_torch_nor_muq(world):
    script = (
        "import tune_cache\n"
        "for agg in ('mean', 'std'):\n"  # remembered, and worked out
        "    r = tune_cache.sweep(sys.argv[1], encoder='mel', seg=[1.0, 'full'], agg=agg,\n"
        "                         layer='last', cache_dir=sys.argv[2], jobs=1)\n"
        "    assert len(r.tables) == 2\n"
        "tune_cache.compare(sys.argv[1], agg=['mean', 'std'], cache_dir=sys.argv[2])\n"
    )
    loaded = modules_after(script, "small", str(world / "cache"))
    assert loaded & {"torch", "muq", "transformers", "torchaudio", "zarr", "h5py"} == set()


def weigh(world, **asked):
    return tune_cache.compare("small", cache_dir=world / "cache", **asked)


def test_two_values_of_a_setting_are_compared_and_validation_chooses_the_rest(world):
    report = weigh(world, seg=[1, 10])
    assert report.sides == ("seg 1", "seg 10")
    assert {pair.task for pair in report.pairs} == TASKS
    sweep = {table.task: table for table in again(world).tables}
    for pair in report.pairs:
        ones = [v for v in sweep[pair.task].verdicts if v.entry.segs == ("1",)]
        best = max(v.entry.validation() for v in ones)
        result = pair.first[0].result
        assert result.scores["val"][result.metric].value == best
        assert pair.second[0].context.seg == "10"
        first = pair.comparisons[0]
        assert first.difference == pytest.approx(first.first - first.second)
        assert first.n_differ == len(pair.tracks)
    n_tests = sum(len(pair.comparisons) for pair in report.pairs)
    assert n_tests == 2 + 3
    assert all(
        holm >= found.p
        for pair in report.pairs
        for holm, found in zip(pair.p_holm, pair.comparisons, strict=True)
    )


def test_two_runs_are_compared_by_their_numbers(world):
    runs = newest_runs(world / "cache/v1/results.sqlite", "small", "kind")
    first, second = runs[0].run_id, runs[1].run_id
    report = tune_cache.compare(run=[first, second], cache_dir=world / "cache")
    (pair,) = report.pairs
    assert report.sides == (f"run {first}", f"run {second}")
    assert pair.comparisons[0].n == N_TEST
    other = newest_runs(world / "cache/v1/results.sqlite", "small", "level")[0].run_id
    with pytest.raises(UsageError, match="different datasets or tasks"):
        tune_cache.compare(run=[first, other], cache_dir=world / "cache")


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        ({}, UsageError, "not clear which two to compare: one of each"),
        ({"seg": [1, 10], "agg": ["mean", "max"]}, UsageError, "--seg has 2 values, --agg has 2"),
        ({"agg": ["mean", "max", "concat"]}, UsageError, "--agg has 3 values"),
        ({"seg": [1, 3]}, StoreNotFoundError, "no results with --seg 3"),
        ({"seg": [1, 10], "probe": "knn"}, StoreNotFoundError, "--seg 1 and the other flags"),
        ({"seg": [1, 10], "task": "mood"}, StoreNotFoundError, "same task 'mood'"),
        ({"run": [1]}, UsageError, "1 runs are given, expected two"),
        ({"run": [1, 2], "seg": 1}, UsageError, "2 runs are given beside other flags"),
        ({"seg": [1, 10], "margin": -1.0}, UsageError, "margin is -1.0"),
    ],
    ids=str,
)
def test_an_unclear_comparison_is_refused(world, asked, error, match):
    with pytest.raises(error, match=match) as caught:
        weigh(world, **asked)
    assert isinstance(caught.value, TuneCacheError)
    assert caught.value.hint


def test_results_from_before_a_changed_label_are_not_compared_with_later_ones(world):
    rewrite(world, "test", relabelled)
    again(world, seg=10)
    with pytest.raises(StoreMismatchError, match=f"1 of {N_TEST} common tracks have other labels"):
        weigh(world, seg=[1, 10], task="kind")


def test_the_command_line_compares(world):
    common = ["compare", "small", "--cache-dir", str(world / "cache")]
    done = tune(world / "data", *common, "--agg", "mean", "--agg", "max")
    assert done.returncode == 0, done.stderr
    assert "small: A is agg mean, B is agg max" in done.stdout
    assert "A mel, seg" in done.stdout
    assert "fewer than 20 groups can show no equivalence" in done.stdout
    found = json.loads(
        tune(world / "data", *common, "--agg", "mean", "--agg", "max", "--json").stdout
    )
    assert found["command"] == "compare"
    assert {row["metric"] for row in found["rows"]} >= {"accuracy", "r2", "r2_loudness"}
    assert {row["verdict"] for row in found["rows"]} <= {
        "first", "second", "equivalent", "undecided",
    }  # fmt: skip
    unclear = tune(world / "data", *common)
    assert unclear.returncode == 2
    assert "hint: give one setting twice" in unclear.stderr


def test_nothing_of_a_comparison_is_kept_where_the_cache_cannot_be_written(world, monkeypatch):
    shutil.rmtree(world / "cache/v1/comparisons")

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory, "write_durably", full)
    assert again(world).n_remembered == 8
    assert not list((world / "cache/v1/comparisons").iterdir())
    with sqlite3.connect(world / "cache/v1/results.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM runs").fetchone() == (8,)
    database.close()
