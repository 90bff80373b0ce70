"""Which cells there are, which are the same thing, and what their keys depend on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_two_world import GENRE, classes_world, dataset_of, features_of

from tune_cache.aggregation.registry import AGGREGATIONS
from tune_cache.cache.ragged import Ragged
from tune_cache.commands.sweep_cells import _layers_of, probes_for
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes import sweep as module
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.presets import PRESETS, preset_named
from tune_cache.probes.sources import Source
from tune_cache.probes.sweep import (
    Cell,
    Cut,
    cell_key,
    code_digest,
    gives_one_back,
    merge_aggregations,
    task_digest,
)
from tune_cache.probes.tasks import load_task
from tune_cache.probes.unlabelled import Training, UnlabelledStore
from tune_cache.segments import segment_spec


def test_aggregations_merge_only_where_no_track_has_two_segments():
    names = ["concat", "mean", "max", "std", "mean+std", "mean+max", "transformer", "attention"]
    assert merge_aggregations(names, one_segment=False) == [(name,) for name in names]
    assert merge_aggregations(names, one_segment=True) == [
        ("concat", "mean", "max", "mean+std"),
        ("std",),
        ("mean+max",),
        ("transformer",),
        ("attention",),
    ]
    assert merge_aggregations(["mean", "mean"], one_segment=False) == [("mean",)]


def one_segment_world():
    """Every track is one segment; classes that no probe gets all right."""
    data, features = classes_world(
        np.random.default_rng(5), n=(60, 30, 60), n_classes=3, dim=6, signal=(0,), strength=1
    )
    first = {
        split: Ragged.from_tracks([track[:1] for track in tracks])
        for split, tracks in features.of_layer(0).items()
    }
    return data, features_of({0: first})


@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_what_is_merged_predicts_the_same_and_what_is_not_does_not(probe):
    """The rule beside the thing itself, for every aggregation there is."""
    data, features = one_segment_world()

    def predicted(name):
        (result,) = run_probe(features, data, aggregation=name, probe=probe, n_resamples=5)
        return [item.prediction for item in result.predictions]

    expected = predicted("mean")
    for name in AGGREGATIONS:
        assert (predicted(name) == expected) is gives_one_back(name), name
    assert len(set(expected)) == 3


@given(
    st.lists(st.integers(50, 9000), min_size=1, max_size=6),
    st.sampled_from([5, 10, 30, 60, "full"]),
    st.sampled_from([5, 10, 30, 60, "full"]),
)
def test_equal_digests_mean_equal_segments(lengths, one, other):
    named = {f"t{place}": n for place, n in enumerate(lengths)}
    specs = [segment_spec(length, sample_rate_hz=100, min_samples=60) for length in (one, other)]
    cuts = [Cut.of(named, spec) for spec in specs]
    same_digest = cuts[0].digest(specs[0]) == cuts[1].digest(specs[1])
    segments = [
        (c.track_ids, c.offsets.tolist(), c.starts.tolist(), c.n_samples.tolist()) for c in cuts
    ]
    assert same_digest == (segments[0] == segments[1])


def test_padded_segments_are_another_cut():
    """Zeros are encoded too: 45 s in a minute of padding are not 45 s."""
    digests = set()
    for length, tail in ((60, "pad"), (60, "keep"), ("full", "keep"), (90, "pad")):
        spec = segment_spec(length, sample_rate_hz=100, min_samples=1, tail=tail)
        digests.add(Cut.of({"a": 4500}, spec).digest(spec))
    assert len(digests) == 3


LABELS = {"train": ["a", "b", "a", "b"], "val": ["a", "b"], "test": ["b", "a"]}


def digest_of(labels=LABELS, **changed):
    return task_digest(load_task(dataset_of(labels, **changed), changed.get("task", GENRE)))


def test_the_digest_of_a_task_is_that_of_labels_groups_splits_and_metrics():
    same = digest_of()
    assert same == digest_of({split: list(labels) for split, labels in LABELS.items()})
    others = [
        digest_of({**LABELS, "test": ["b", "b"]}),
        digest_of({**LABELS, "val": ["b", "a"]}),
        digest_of({**LABELS, "train": ["a", "b", "a"]}),
        digest_of({**LABELS, "train": ["a", "b", "a", None]}),
        digest_of({**LABELS, "train": ["a", "b", "a"], "test": ["b", "a", "b"]}),
        digest_of(groups=lambda split, number: f"{split}-{number // 2}"),
        digest_of(task=dataclasses.replace(GENRE, metrics=("macro_f1",))),
        digest_of(task=dataclasses.replace(GENRE, name="style")),
    ]
    assert len({same, *others}) == 1 + len(others)


SOURCE = Source(stores=(Path("a"),), task="t")
CELL = Cell(source=SOURCE, aggregation="mean", probe="ridge", layer="last", seed=1)


OTHER = UnlabelledStore(
    name="more",
    path=Path("m"),
    content_digest="00",
    track_ids=("a", "b"),
    groups=("a", "b"),
    n_left_out=0,
)


def key_of(cell=CELL, **changed):
    return cell_key(cell, **{"spec_key": "s", "content_digest": "c", "task": "d", **changed})


def test_a_key_depends_on_every_setting_and_input_and_not_on_where_the_store_lies():
    same = key_of()
    elsewhere = dataclasses.replace(SOURCE, stores=(Path("b"),))
    assert same == key_of(dataclasses.replace(CELL, source=elsewhere))
    changes = {
        "aggregation": "max",
        "aggregation_options": {"max_segments": 2},
        "probe": "knn",
        "probe_options": {"checkpoint": "last"},
        "layer": "6",
        "seed": 2,
        "shots": 5,
        "repeats": 20,
        "training": Training(source=OTHER),
    }
    kept = dataclasses.replace(CELL, training=Training(folder=Path("c"), exactly=Path("d")))
    assert key_of(kept) == same
    fewer = dataclasses.replace(OTHER, track_ids=("a",), groups=("a",))
    assert key_of(dataclasses.replace(CELL, training=Training(source=fewer))) != key_of(
        dataclasses.replace(CELL, training=Training(source=OTHER))
    )
    of_source = {"task": "u", "derive": 30.0, "leaks": ("2 of 9 tracks",)}
    assert changes.keys() == {field.name for field in dataclasses.fields(Cell)} - {"source"}
    # content_digest stands for stores, the digest of the task for what is left out
    fields = {field.name for field in dataclasses.fields(Source)} - {"stores", "left_out"}
    assert of_source.keys() == fields
    keys = [
        key_of(dataclasses.replace(CELL, source=dataclasses.replace(SOURCE, **{name: v})))
        for name, v in of_source.items()
    ]
    keys += [key_of(dataclasses.replace(CELL, **{name: v})) for name, v in changes.items()]
    keys += [key_of(**{name: "other"}) for name in ("spec_key", "content_digest", "task")]
    assert len({same, *keys}) == 1 + len(keys)


def test_other_code_or_another_library_is_another_key(monkeypatch):
    same = key_of()
    code_digest.cache_clear()
    assert key_of() == same
    code_digest.cache_clear()
    monkeypatch.setattr(module.metadata, "version", lambda name: "0.0")
    assert key_of() != same
    monkeypatch.undo()
    code_digest.cache_clear()
    read = Path.read_bytes
    monkeypatch.setattr(
        Path,
        "read_bytes",
        lambda path: read(path) + (b"#" if path.name == "concat.py" else b""),
    )
    assert key_of() != same
    monkeypatch.undo()
    code_digest.cache_clear()
    assert key_of() == same


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["best"], ["best"]),
        (["all"], ["0", "6", "12"]),
        (["last", "12", "-1"], ["last"]),
        (["12", "last", "mean"], ["12", "mean"]),
        (["all", "6", "-2"], ["0", "6", "12"]),
        (["-9"], ["-9"]),
    ],
    ids=str,
)
def test_each_layer_is_one_cell_however_it_is_spelled(asked, found):
    assert _layers_of(asked, (0, 6, 12)) == found


def test_a_probe_is_one_cell_however_it_is_spelled_and_only_where_it_can_learn():
    assert probes_for(["auto", "logistic", "knn"], "multiclass") == (["logistic", "knn"], [])
    assert probes_for(["logistic", "ridge"], "regression") == (["ridge"], ["logistic"])
    with pytest.raises(TaskError, match="'logistic' cannot learn a regression task"):
        probes_for(["logistic"], "regression")


def test_a_preset_is_the_study_s_grid():
    study = PRESETS["tune-paper"]
    assert study.agg == ("concat", "mean", "max", "transformer")
    assert study.seg == (10.0, 30.0, 60.0, "full")
    assert study.layer == ("last",)
    with pytest.raises(UsageError, match="'tune', expected one of tune-paper"):
        preset_named("tune")
