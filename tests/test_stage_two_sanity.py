"""What a probe may find and may not: chance on noise, order, length."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from stage_two_world import (
    EMOTION,
    GENRE,
    classes_world,
    dataset_of,
    features_of,
    random_tracks,
)

from tune_cache.aggregation.registry import AGGREGATIONS, make_aggregation
from tune_cache.cache.ragged import Ragged
from tune_cache.datasets.base import Task
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.tasks import load_task

SPLITS = ("train", "val", "test")


def test_score(data, features, **asked):
    (result,) = run_probe(features, data, n_resamples=20, **asked)
    return result.scores["test"][result.metric].value


test_score.__test__ = False


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_shuffled_classes_are_scored_at_chance(aggregation, probe):
    scores = []
    for seed in range(5):
        world = classes_world(np.random.default_rng(seed), n=(40, 20, 60), n_classes=2, dim=5)
        scores.append(test_score(*world, aggregation=aggregation, probe=probe))
    standard_error = np.sqrt(0.25 / (5 * 60))
    assert abs(np.mean(scores) - 0.5) < 3 * standard_error


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("probe", ["ridge", "knn"])
def test_shuffled_targets_are_not_predicted(aggregation, probe):
    scores = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        labels = {
            split: list(map(tuple, rng.standard_normal((n, 2)).tolist()))
            for split, n in zip(SPLITS, (60, 40, 60), strict=True)
        }
        data = load_task(dataset_of(labels, task=EMOTION), EMOTION)
        layer = {split: random_tracks(rng, len(part)) for split, part in data.splits.items()}
        scores.append(
            test_score(data, features_of({0: layer}), aggregation=aggregation, probe=probe)
        )
    assert np.mean(scores) <= 0.05


# a spread says nothing of the level that the signal is planted in
@pytest.mark.parametrize("aggregation", [name for name in AGGREGATIONS if name != "std"])
@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_a_planted_signal_is_found(aggregation, probe):
    world = classes_world(np.random.default_rng(5), signal=(0,), strength=4)
    assert test_score(*world, aggregation=aggregation, probe=probe) > 0.75


def test_a_signal_in_the_order_of_segments_is_found_only_where_positions_are_kept():
    """Both classes hold the same two segments; one class has them swapped."""
    rng = np.random.default_rng(6)
    labels = {
        split: ["ab"[number % 2] for number in range(n)]
        for split, n in zip(SPLITS, (80, 40, 100), strict=True)
    }
    data = load_task(dataset_of(labels), GENRE)
    layer = {}
    for split, part in data.splits.items():
        tracks = []
        for truth in part.truth:
            pair = np.stack([np.ones(6), -np.ones(6)]) + 0.5 * rng.standard_normal((2, 6))
            tracks.append(pair[::-1] if truth else pair)
        layer[split] = Ragged.from_tracks(tracks)
    found = {
        name: test_score(data, features_of({0: layer}), aggregation=name) for name in AGGREGATIONS
    }
    for name in ("concat", "first", "middle"):  # of two segments, one of them
        assert found.pop(name) > 0.95, name
    assert all(abs(value - 0.5) < 3 * np.sqrt(0.25 / 100) for value in found.values()), found


N_SEGMENTS = Task(name="length", label="length", kind="regression", targets=("n_segments",))


def length_world(rng, task=N_SEGMENTS, *, constant=False, mean=0.0):
    """The label is the number of segments, 1 or 6; the vectors know nothing of it.

    ``constant`` repeats one vector through a track, so that only the count differs.
    """
    counts = {
        split: np.array([1, 6] * (n // 2)) for split, n in zip(SPLITS, (100, 60, 160), strict=True)
    }
    labels = {split: found.tolist() for split, found in counts.items()}
    data = load_task(dataset_of(labels, task=task), task)
    layer = {}
    for split, some in counts.items():
        vectors = [mean + rng.standard_normal((1 if constant else n, 6)) for n in some]
        layer[split] = Ragged.from_tracks(
            [np.repeat(v, n // len(v), axis=0) for v, n in zip(vectors, some, strict=True)]
        )
    return data, features_of({0: layer})


def length_score(aggregation, task=N_SEGMENTS, **options):
    return np.mean(
        [
            test_score(
                *length_world(np.random.default_rng(seed), task, **options), aggregation=aggregation
            )
            for seed in range(6)
        ]
    )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_length_alone_predicts_nothing_unless_declared(aggregation):
    """With independent segments a maximum grows and a spread appears with their number.

    That is what these statistics are, and why ``sees_length`` and a flag say so.
    """
    r2 = length_score(aggregation)
    if aggregation in ("max", "min", "std", "mean+std"):
        assert make_aggregation(aggregation).sees_length
        assert r2 > 0.5
    else:  # a median's spread shrinks with the number, but not its level: nothing for a line
        assert r2 <= 0.05


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_number_of_equal_segments_predicts_nothing(aggregation):
    assert length_score(aggregation, constant=True, mean=5.0) <= 0.05


def test_rescaling_after_padding_would_leak_length():
    """Why zeros come after standardising: the same vectors, padded first."""
    data, features = length_world(np.random.default_rng(0), mean=5.0)
    padded = {}
    for split, part in features.of_layer(0).items():
        rows = np.zeros((len(part), 6 * 6))
        for row, track in zip(rows, part, strict=True):
            row[: track.size] = track.ravel()
        padded[split] = Ragged.from_tracks(list(rows[:, None]))
    assert test_score(data, features_of({0: padded}), aggregation="mean") > 0.95
    assert test_score(data, features, aggregation="concat") <= 0.05


def test_a_classifier_sees_no_padding_and_a_flag_tells_how_much_there_is():
    """Where zeros stood, 0.68 of the tracks were told apart by length alone."""
    task = Task(name="length", label="length", kind="multiclass")
    three_errors = 3 * np.sqrt(0.25 / (6 * 160))
    assert abs(length_score("concat", task) - 0.5) < three_errors
    data, features = length_world(np.random.default_rng(0), task)
    (result,) = run_probe(features, data, aggregation="concat", n_resamples=20)
    assert any(flag.startswith("padded: 42% of the vectors") for flag in result.flags)


def test_stage_two_imports_neither_torch_nor_muq():
    code = """
import sys
import numpy as np
from tune_cache.aggregation.registry import AGGREGATIONS, make_aggregation
from tune_cache.probes import evaluate, features, models, tasks
from tune_cache.reports import results, tables
for name in AGGREGATIONS:
    make_aggregation(name).fit_transform([np.eye(3), np.ones((1, 3))])
for name in models.PROBES:
    models.PROBES[name]().fit(np.eye(4), np.arange(4), standardise=True)
heavy = {"torch", "muq", "transformers", "torchaudio", "zarr", "soundfile"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
