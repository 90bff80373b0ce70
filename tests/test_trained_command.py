"""Trained aggregations through ``tune probe`` and ``tune sweep``, from audio to weights on disk."""

from __future__ import annotations

import csv
import shutil

import pytest
from small_dataset import make_small_dataset

import tune_cache
from tune_cache.aggregation import transformer as module
from tune_cache.errors import (
    StoreCorruptError,
    StoreMismatchError,
    StoreNotFoundError,
    TaskError,
    UsageError,
)
from tune_cache.probes import joint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    make_small_dataset(folder / "data")
    make_small_dataset(folder / "other", name="other", n_tracks=32)
    for name in ("data/small", "other/other"):
        tune_cache.extract(str(folder / name), encoder="mel", seg=[1.0], cache_dir=folder / "cache")
    return folder


@pytest.fixture
def world(made, tmp_path, monkeypatch):
    monkeypatch.setattr(joint, "MOST_STEPS", 10)
    shutil.copytree(made, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w" / "data")
    return tmp_path / "w"


def probed(world, **asked):
    report = tune_cache.probe(
        "small", task="kind", encoder="mel", cache_dir=world / "cache", **asked
    )
    return report.runs


def checkpoints(world):
    return sorted((world / "cache/v1/aggregators").glob("*"))


def test_weights_are_kept_and_used_again_and_damage_is_an_error(world, monkeypatch):
    (run,) = probed(world, agg="transformer")
    (path,) = checkpoints(world)
    assert run.result.trained["pretraining"]["heads"] == 8
    monkeypatch.setattr(module, "pretrain", None)  # nothing is trained again
    (again,) = probed(world, agg="transformer", aggregator=path)
    assert again.result.predictions == run.result.predictions
    with pytest.raises(StoreMismatchError, match="seed"):
        probed(world, agg="transformer", seed=2, aggregator=path)
    with pytest.raises(StoreNotFoundError, match="is not there"):
        probed(world, agg="transformer", aggregator=path.with_name("none.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreCorruptError, match="damaged"):
        probed(world, agg="transformer")


def test_attention_writes_a_weight_for_every_segment(world):
    (run,) = probed(world, agg="attention", layer="last", attention_out=world / "weights.csv")
    with (world / "weights.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_track = {}
    for row in rows:
        by_track.setdefault(row["track_id"], []).append(float(row["weight"]))
    assert len(by_track) == sum(run.result.n.values())
    assert all(sum(weights) == pytest.approx(1, abs=1e-4) for weights in by_track.values())
    assert max(map(len, by_track.values())) > 1
    with pytest.raises(UsageError, match="no result has weights"):
        probed(world, agg="mean", attention_out=world / "none.csv")


def test_another_collection_is_pre_trained_on_without_what_is_held_out_here(world):
    (run,) = probed(world, agg="transformer", pretrain_on=str(world / "other/other"))
    facts = run.result.trained["pretraining"]
    assert run.result.aggregation_options["pretrain_on"] == "other"
    # the same songs by name: those of val and test here are left out there
    assert facts["tracks"] + facts["one_segment"] < 32
    assert any("are held out here" in text for text in run.result.warnings)


def test_a_collection_of_held_out_tracks_alone_teaches_nothing(world):
    lists = world / "data"
    for split in ("train", "val"):
        (lists / f"held.{split}.jsonl").write_text((lists / "small.test.jsonl").read_text())
    (lists / "held.train.jsonl").unlink()
    (lists / "held.val.jsonl").rename(lists / "held.train.jsonl")
    with pytest.raises(TaskError, match="every track of 'held' is held out"):
        probed(world, agg="transformer", pretrain_on=str(lists / "held"))


@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        ({"finetune": True}, "--finetune"),
        ({"pretrain_epochs": 3}, "--pretrain-epochs"),
        ({"pretrain_on": "other"}, "--pretrain-on"),
        ({"positions": "learned"}, "--positions"),
    ],
)
def test_a_setting_that_nothing_takes_is_an_error(world, asked, flag):
    with pytest.raises(UsageError, match=f"{flag} is of no aggregation asked for"):
        probed(world, agg="mean", **asked)


def test_a_sweep_trains_each_thing_once_and_remembers_it(world, monkeypatch):
    grid = {
        "agg": ["mean", "transformer", "attention"],
        "layer": ["last", "mix"],
        "task": "kind",
        "encoder": "mel",
        "seed": [1, 2],
        "jobs": 1,
        "cache_dir": world / "cache",
    }
    first = tune_cache.sweep("small", **grid)
    (table,) = first.tables
    rows = {
        (v.entry.aggregations[0], v.entry.results[0].layer_asked, v.entry.results[0].probe)
        for v in table.verdicts
    }
    assert rows == {
        ("mean", "last", "logistic"),
        ("mean", "mix", "linear"),
        ("transformer", "last", "logistic"),
        ("transformer", "mix", "linear"),
        ("attention", "last", "linear"),
        ("attention", "mix", "linear"),
    }
    assert first.n_cells == 12
    assert all(len(v.entry.results) == 2 for v in table.verdicts)
    kept = checkpoints(world)
    again = tune_cache.sweep("small", **grid)
    assert again.n_remembered == 12
    other = tune_cache.sweep("small", **grid, finetune=True)
    assert other.n_remembered == 8  # all but those of the transformer
    assert set(kept) < set(checkpoints(world))


def test_a_sweep_in_processes_finds_what_one_process_finds(world):
    grid = {"agg": ["transformer"], "layer": ["last"], "task": "kind", "encoder": "mel"}

    def numbers(jobs):
        report = tune_cache.sweep(
            "small", **grid, seed=[1, 2], jobs=jobs, cache_dir=world / "cache"
        )
        for path in (world / "cache/v1/results.sqlite", *checkpoints(world)):
            path.unlink()
        shutil.rmtree(world / "cache/v1/comparisons", ignore_errors=True)
        return [v.score for table in report.tables for v in table.verdicts]

    assert numbers(2) == numbers(1)
