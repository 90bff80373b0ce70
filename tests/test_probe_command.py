"""``tune probe`` on a small dataset: scales, derived lengths, few shots, leaks, what it prints."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import tune
from small_dataset import make_small_dataset

import tune_cache
from tune_cache.cache.find import find_stores
from tune_cache.cache.layout import Layout
from tune_cache.cache.store import open_store
from tune_cache.commands.show_probe import grids
from tune_cache.errors import StoreNotFoundError, TaskError, UsageError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of two tasks with stores of 1 s, 2 s and whole tracks."""
    folder = tmp_path_factory.mktemp("probe")
    prefix = make_small_dataset(folder / "data")
    tune_cache.extract(prefix, encoder="mel", seg=[1, 2, "full"], cache_dir=folder / "cache")
    return prefix, folder / "cache"


def probe(made, **asked):
    prefix, cache = made
    return tune_cache.probe(prefix, encoder="mel", cache_dir=cache, **asked)


def results(made, **asked):
    return [(run.context.seg, run.result) for run in probe(made, **asked).runs]


def test_multiscale_takes_all_lengths_at_once_and_others_each_by_itself(made):
    found = results(made, agg=["mean", "multiscale-mean", "multiscale-concat"])
    assert [(seg, result.aggregation) for seg, result in found] == [
        ("1", "mean"), ("2", "mean"), ("full", "mean"),
        ("1+2+full", "multiscale-mean"), ("1+2+full", "multiscale-concat"),
    ]  # fmt: skip
    widths = [result.n_features for _, result in found]
    assert widths[4] == 3 * widths[0] == 3 * widths[3]


def test_lengths_of_a_multiscale_are_those_asked_for(made):
    ((seg, result),) = results(made, agg="multiscale-concat", seg=[2, 1])
    assert seg == "1+2"
    (run,) = probe(made, agg="multiscale-concat", seg=[1, 2]).runs
    assert run.context.store.count(" + ") == 1
    assert len(run.context.spec["scales"]) == 2
    assert run.result.predictions == result.predictions
    parts = [probe(made, seg=seg).runs[0].context for seg in (1, 2)]
    assert run.context.cost["stage_one_seconds"] == pytest.approx(
        sum(part.cost["stage_one_seconds"] for part in parts)
    )
    assert run.context.content_digest not in {part.content_digest for part in parts}


def test_one_length_is_no_multiscale(made):
    with pytest.raises(UsageError, match="two segment lengths or more, found one"):
        probe(made, agg="multiscale-mean", seg=1)


def test_derived_lengths_stand_beside_true_ones(made):
    found = results(made, seg=[1, 2], derive=2, agg="max")
    assert [(seg, result.aggregation_options) for seg, result in found] == [
        ("1", {}), ("1", {"derive": 2}), ("2", {}),
    ]  # fmt: skip
    alone, derived, true = (result for _, result in found)
    assert derived.share_one_segment == true.share_one_segment > alone.share_one_segment


def test_a_length_that_no_store_divides_is_refused_before_any_work(made):
    with pytest.raises(UsageError, match="no store serves to derive segments of 5 s") as caught:
        probe(made, seg=[2, "full"], derive=[4, 5])
    assert "a half, a third" in caught.value.hint


def test_options_of_concat_go_to_concat_only(made):
    asked = {"agg": ["mean", "concat"], "seg": 1}
    found = results(made, max_segments=2, fill="zero", **asked)
    assert [result.aggregation_options for _, result in found] == [
        {}, {"max_segments": 2, "fill": "zero"},
    ]  # fmt: skip
    with pytest.raises(UsageError, match="fill is 'ones'"):
        probe(made, fill="ones", **asked)


def test_a_wrong_name_is_found_before_anything_is_read(made, monkeypatch):
    monkeypatch.setattr("tune_cache.commands.probe.stores_to_probe", pytest.fail)
    with pytest.raises(UsageError, match="aggregation is 'maen'"):
        probe(made, agg=["mean", "maen"])


def test_shots_are_rows_of_their_own(made):
    found = results(made, shots=[1, 2], repeats=3, seg="full", probe="centroid")
    assert [result.probe for _, result in found] == ["centroid 1-shot", "centroid 2-shot"]
    assert {len(result.repeat_scores["accuracy"]) for _, result in found} == {3}


def leaky(folder):
    """One test track's file is in train too, and one val group."""
    prefix = make_small_dataset(folder / "data")
    records = {
        split: [
            json.loads(line) for line in Path(f"{prefix}.{split}.jsonl").read_text().splitlines()
        ]
        for split in ("train", "val", "test")
    }
    shutil.copy(folder / "data" / records["test"][0]["audio_path"], folder / "data" / "copy.wav")
    records["train"].append({**records["test"][0], "audio_path": "copy.wav", "ori_uid": "other"})
    records["val"][0]["ori_uid"] = records["train"][1]["ori_uid"]
    for split, rows in records.items():
        Path(f"{prefix}.{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    tune_cache.extract(prefix, encoder="mel", seg=1, cache_dir=folder / "cache")
    return prefix, folder / "cache"


def test_leaks_are_told_refused_or_left_out(tmp_path):
    made = leaky(tmp_path)
    ((_, said),) = results(made)
    (audio,) = (text for text in said.warnings if "have the audio file of train" in text)
    assert audio.startswith("1 of 4 test tracks have the audio file of train tracks")
    (group,) = (text for text in said.warnings if "share a group with train" in text)
    assert group.startswith("1 of 6 val tracks share a group")
    with pytest.raises(
        TaskError, match=r"splits of task .small. leak: .*share a group.*audio file"
    ):
        probe(made, strict=True)
    ((_, honest),) = results(made, drop_leaks=True)
    assert honest.n["train"] < said.n["train"]
    assert honest.n["test"] == said.n["test"]
    assert honest.excluded["copy.wav"] == "leak: audio"
    assert not any("leaves the counterparts out" in text for text in honest.warnings)


def test_tracks_dropped_at_one_length_are_dropped_at_all(tmp_path):
    prefix, cache = leaky(tmp_path)
    tune_cache.extract(prefix, encoder="mel", seg=2, cache_dir=cache)
    found = results((prefix, cache), agg="multiscale-mean", drop_leaks=True)
    ((seg, result),) = found
    assert (seg, result.excluded["copy.wav"]) == ("1+2", "leak: audio")


def test_the_command_tells_grids_on_stderr_and_matrices_when_asked(made):
    prefix, cache = made
    folder = cache.parent
    arguments = ("probe", str(prefix), "--encoder", "mel", "--cache-dir", str(cache), "--seg", "1")
    done = tune(folder, *arguments, "--probe", "knn", "--confusion")
    assert done.returncode == 0, done.stderr
    assert "knn chooses k in 9, 5, 3, 1; metric in cosine, euclidean" in done.stderr
    assert "rows the truth" in done.stdout
    assert re.search(r"^noise +\d+ +\d+$", done.stdout, flags=re.MULTILINE)
    done = tune(
        folder, *arguments, "--agg", "mean-duration+std", "--derive", "2", "--shots", "2",
        "--repeats", "2", "--fill", "mean", "--strict", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["aggregation_options"] for row in rows] in (
        [{}, {"derive": 2}], [{"derive": 2}, {}],
    )  # fmt: skip
    assert {row["probe"] for row in rows} == {"logistic 2-shot"}
    assert all(row["seconds_predict_per_1000"] > 0 for row in rows)


def test_a_dataset_without_validation_is_probed_on_folds(made, tmp_path):
    prefix, cache = made
    shutil.copytree(prefix.parent, tmp_path / "data")
    (tmp_path / "data" / "small.val.jsonl").unlink()
    found = tune_cache.probe(tmp_path / "data" / "small", encoder="mel", cache_dir=cache, seg=1)
    (run,) = found.runs
    assert any("no validation split" in text for text in run.result.warnings)
    assert not np.isnan(run.result.scores["val"]["accuracy"].value)
    assert tune_cache.report(tmp_path / "data" / "small", cache_dir=cache).runs


def test_what_tune_toml_says_holds_unless_a_flag_says_other(made):
    prefix, cache = made
    folder = cache.parent / "configured"
    folder.mkdir()
    (folder / "tune.toml").write_text(
        "[defaults]\nshots = [1, 2]\nrepeats = 2\nprobe = 'centroid'\nseg = 1\n"
    )
    asked = ("probe", str(prefix), "--encoder", "mel", "--cache-dir", str(cache), "--json")
    rows = json.loads(tune(folder, *asked).stdout)["rows"]
    assert {row["probe"] for row in rows} == {"centroid 1-shot", "centroid 2-shot"}
    rows = json.loads(tune(folder, *asked, "--shots", "3").stdout)["rows"]
    assert {row["probe"] for row in rows} == {"centroid 3-shot"}


def test_a_damaged_store_is_told_as_such_and_never_left_out_silently(made, tmp_path, caplog):
    prefix, cache = made[0], shutil.copytree(made[1], tmp_path / "cache")
    (store,) = (cache / "v1" / "mel").glob("seg1-*.zarr")
    (store / "embeddings/mean/c/0/0/0").unlink()
    asked = "probe", str(prefix), "--encoder", "mel", "--agg", "mean", "--cache-dir", str(cache)
    found = tune(tmp_path, *asked, "--seg", "1")
    assert found.returncode == 4
    assert f"repair {store}" in found.stderr
    n_tracks = len(open_store(made[1] / store.relative_to(cache)).track_ids)
    assert f"{n_tracks} track(s) hit: " in found.stderr
    others = tune(tmp_path, *asked)  # every length that there is
    assert others.returncode == 0
    assert "segment length 1 is passed over: file 'embeddings/mean/c/0/0/0'" in caplog.text
    with pytest.raises(StoreNotFoundError, match="cannot be used"):  # perhaps, but of others
        find_stores(Layout(cache), encoder="mel", lengths=[1], audio=dict, track_ids=["nobody"])


def test_grids_are_told_once_a_probe(made):
    text = "sklearn.neighbors.KNeighborsClassifier(n_neighbors={3, 1})"
    runs = probe(made, probe=[text, "ridge"], agg=["mean", "max"], seg=1, shots=2, repeats=1).runs
    assert grids(runs) == [
        f"{text} chooses n_neighbors in 3, 1",
        "ridge chooses alpha in 1e+06, 100000, 10000, 1000, 100, 10, 1, 0.1, 0.01, 0.001",
    ]
