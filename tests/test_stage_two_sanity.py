"""What a probe may find and may not: chance on noise, order, length.

Labels are shuffled within splits: a shuffle over splits makes the class that
training has more of the rarer one in test, and scores fall below chance.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from stage_two_world import EMOTION, GENRE, classes_world, dataset_of, features_of, random_tracks

from tune_cache.aggregation.registry import AGGREGATIONS, MULTISCALE, make_aggregation
from tune_cache.cache.ragged import Ragged
from tune_cache.datasets.base import Task
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.features import joined
from tune_cache.probes.mlp import MLPOptions
from tune_cache.probes.models import PROBES
from tune_cache.probes.schedule import Schedule
from tune_cache.probes.tasks import load_task

SPLITS = ("train", "val", "test")
EVERY = (*AGGREGATIONS, *MULTISCALE)
N_SHUFFLES = 20
TAGS = Task(name="tags", label="tags", kind="multilabel")
# what leaks, leaks at any width: the whole probe is held to chance over mean, a quicker elsewhere
SMALL = MLPOptions(hidden=16, schedule=Schedule(max_epochs=8, learning_rate=0.01))
SOLVED = sorted(set(PROBES) - {"mlp"})
FOREST = "sklearn.ensemble.ExtraTreesClassifier(n_estimators=5, max_depth=3)"


def test_score(data, features, **asked):
    (result,) = run_probe(features, data, n_resamples=1, **asked)
    return result.scores["test"][result.metric].value


test_score.__test__ = False


def labels_of(rng, kind, n):
    """Labels of one split: as many of each class, of each tag; normal targets."""
    if kind == "multiclass":
        return ["ab"[place % 2] for place in rng.permutation(n)]
    if kind == "regression":
        return list(map(tuple, rng.standard_normal((n, 2)).tolist()))
    tags = [rng.permutation(n) % 2 for _ in range(2)]
    return [tuple(f"t{tag}" for tag in range(2) if tags[tag][place]) for place in range(n)]


TASKS = {"multiclass": GENRE, "multilabel": TAGS, "regression": EMOTION}


def shuffled_world(seed, kind, aggregation="mean", n=(24, 16, 40)):
    """Labels without order beside vectors without meaning."""
    rng = np.random.default_rng(seed)
    task = TASKS[kind]
    labels = {split: labels_of(rng, kind, k) for split, k in zip(SPLITS, n, strict=True)}
    data = load_task(dataset_of(labels, task=task), task)

    def noise(lengths):
        layer = {
            split: random_tracks(rng, len(part), dim=4, lengths=lengths)
            for split, part in data.splits.items()
        }
        return features_of({0: layer})

    features = noise((1, 4))
    if aggregation in MULTISCALE:
        features = joined([features, noise((1, 2))])
    return data, features


def shuffled_score(seed, kind, aggregation, probe):
    data, features = shuffled_world(seed, kind, aggregation)
    options = {} if probe != "mlp" or aggregation == "mean" else {"probe_options": SMALL}
    return test_score(data, features, aggregation=aggregation, probe=probe, **options)


def standard_error(scores):
    return np.std(scores, ddof=1) / np.sqrt(len(scores))


def with_mlp(aggregations, mlp=("mean", "concat"), solved=SOLVED):
    """Every aggregation with every solved probe, and some with the trained one."""
    pairs = [(name, probe) for probe in solved for name in aggregations]
    return pytest.mark.parametrize(
        ("aggregation", "probe"), pairs + [(name, "mlp") for name in aggregations if name in mlp]
    )


@with_mlp(EVERY)
def test_shuffled_classes_are_scored_at_chance(aggregation, probe):
    scores = [shuffled_score(seed, "multiclass", aggregation, probe) for seed in range(N_SHUFFLES)]
    assert abs(np.mean(scores) - 0.5) < 3 * np.sqrt(0.25 / (40 * N_SHUFFLES))


@with_mlp(EVERY, solved=sorted(name for name in SOLVED if "regression" in PROBES[name]))
def test_shuffled_targets_are_not_predicted(aggregation, probe):
    scores = [shuffled_score(seed, "regression", aggregation, probe) for seed in range(N_SHUFFLES)]
    assert np.mean(scores) <= 0.05


@pytest.mark.parametrize("aggregation", ["mean", "concat"])
@pytest.mark.parametrize("probe", sorted(PROBES))
def test_shuffled_tags_are_ranked_at_chance(aggregation, probe):
    scores = [shuffled_score(seed, "multilabel", aggregation, probe) for seed in range(N_SHUFFLES)]
    assert abs(np.mean(scores) - 0.5) < 3 * standard_error(scores)


def test_an_estimator_of_others_is_at_chance_on_shuffled_classes():
    scores = [shuffled_score(seed, "multiclass", "mean", FOREST) for seed in range(N_SHUFFLES)]
    assert abs(np.mean(scores) - 0.5) < 3 * np.sqrt(0.25 / (40 * N_SHUFFLES))


@with_mlp(sorted(set(AGGREGATIONS) - {"std"}), mlp=EVERY)
def test_a_planted_signal_is_found(aggregation, probe):
    world = classes_world(np.random.default_rng(5), signal=(0,), strength=5)
    assert test_score(*world, aggregation=aggregation, probe=probe) > 0.75


def order_world(rng, n_before=0):
    """Both classes hold the same two segments, after some noise; one class has them swapped."""
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
            noise = rng.standard_normal((n_before, 6))
            tracks.append(np.concatenate([noise, pair[::-1] if truth else pair]))
        layer[split] = Ragged.from_tracks(tracks)
    return data, features_of({0: layer})


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_signal_in_the_order_of_segments_is_found_where_order_is_kept(aggregation):
    found = test_score(*order_world(np.random.default_rng(6)), aggregation=aggregation)
    if aggregation in ("concat", "first", "middle"):
        assert found > 0.95
    else:
        assert abs(found - 0.5) < 3 * np.sqrt(0.25 / 100)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_an_order_that_no_single_early_segment_tells_is_found_by_concat_only(aggregation):
    """Three segments of noise before: neither the first nor the middle one knows."""
    found = test_score(*order_world(np.random.default_rng(6), 3), aggregation=aggregation)
    if aggregation == "concat":
        assert found > 0.9
    else:
        assert abs(found - 0.5) < 3 * np.sqrt(0.25 / 100)


N_SEGMENTS = Task(name="length", label="length", kind="regression", targets=("n_segments",))
IS_LONG = Task(name="length", label="length", kind="multiclass")


def length_world(rng, task=N_SEGMENTS, *, alike=False, mean=0.0, n=(100, 60, 160)):
    """The label is the number of segments, 1 or 6; the vectors know nothing of it.

    ``alike`` repeats one vector through a track, so that only the count differs.
    """
    counts = {split: np.array([1, 6] * (k // 2)) for split, k in zip(SPLITS, n, strict=True)}
    labels = {split: found.tolist() for split, found in counts.items()}
    data = load_task(dataset_of(labels, task=task), task)
    layer = {}
    for split, some in counts.items():
        vectors = [mean + rng.standard_normal((1 if alike else k, 6)) for k in some]
        layer[split] = Ragged.from_tracks(
            [np.repeat(v, k // len(v), axis=0) for v, k in zip(vectors, some, strict=True)]
        )
    return data, features_of({0: layer})


def length_scores(aggregation, task=N_SEGMENTS, *, probe="auto", n_worlds=6, fill=None, **world):
    scores = []
    for seed in range(n_worlds):
        data, features = length_world(np.random.default_rng(seed), task, **world)
        if aggregation in MULTISCALE:
            features = joined([features, features])
        options = {} if fill is None else {"fill": fill}
        asked = {"aggregation": aggregation, "aggregation_options": options, "probe": probe}
        if probe == "mlp":
            asked["probe_options"] = SMALL
        scores.append(test_score(data, features, **asked))
    return scores


@pytest.mark.parametrize("aggregation", sorted(set(EVERY) - {"median"}))
def test_length_alone_predicts_no_target_unless_declared(aggregation):
    """With independent segments a maximum grows and a spread appears with their number.

    That is what these statistics are, and why ``sees_length`` and a flag say so; a
    median moves only where values are skewed, as in ``test_pooling.py``.
    """
    r2 = np.mean(length_scores(aggregation))
    assert r2 > 0.5 if make_aggregation(aggregation).sees_length else r2 <= 0.05


@pytest.mark.parametrize("aggregation", EVERY)
@pytest.mark.parametrize("probe", ["ridge", "knn"])
def test_the_number_of_equal_segments_predicts_no_target(aggregation, probe):
    assert np.mean(length_scores(aggregation, probe=probe, alike=True, mean=5.0)) <= 0.05


@with_mlp(EVERY)
def test_the_number_of_equal_segments_predicts_no_class(aggregation, probe):
    scores = length_scores(aggregation, IS_LONG, probe=probe, alike=True, mean=5.0, n_worlds=4)
    assert abs(np.mean(scores) - 0.5) < 3 * np.sqrt(0.25 / (4 * 160))


@pytest.mark.parametrize("probe", sorted(PROBES))
def test_the_number_of_unlike_segments_predicts_no_class_through_concat(probe):
    """Zeros did, at 0.65 to 0.8: short tracks sat still, long ones scattered."""
    scores = length_scores("concat", IS_LONG, probe=probe)
    assert abs(np.mean(scores) - 0.5) < 3 * np.sqrt(0.25 / (6 * 160))


def test_what_else_could_be_filled_in_would_tell_length():
    for fill in ("zero", "mean"):
        assert np.mean(length_scores("concat", IS_LONG, fill=fill)) > 0.58
        assert np.mean(length_scores("concat", IS_LONG, probe="knn", fill=fill)) > 0.7


@pytest.mark.parametrize("aggregation", ["first", "middle"])
def test_one_segment_s_vector_tells_no_number_of_segments(aggregation):
    for probe in sorted(PROBES):
        scores = length_scores(aggregation, IS_LONG, probe=probe)
        assert abs(np.mean(scores) - 0.5) < 3 * np.sqrt(0.25 / (6 * 160))


def test_a_mean_of_unlike_segments_still_scatters_less_and_classifiers_see_some_of_it():
    """What remains, and is no matter of filling: a mean of six is nearer the centre."""
    assert np.mean(length_scores("mean", IS_LONG, probe="knn")) > 0.7
    assert 0.5 < np.mean(length_scores("mean", IS_LONG)) < 0.62


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
    for fill in ("draw", "mean", "zero"):
        options = {"aggregation": "concat", "aggregation_options": {"fill": fill}}
        assert test_score(data, features, **options) <= 0.05


def test_filled_vectors_are_flagged():
    data, features = length_world(np.random.default_rng(0), IS_LONG)
    (result,) = run_probe(features, data, aggregation="concat", n_resamples=1)
    assert any(flag.startswith("padded: 42% of the vectors") for flag in result.flags)


def test_stage_two_imports_neither_torch_nor_muq():
    code = """
import sys
import numpy as np
from tune_cache.aggregation.registry import AGGREGATIONS, MULTISCALE, make_aggregation
from tune_cache.probes import evaluate, features, guard, models, tasks
from tune_cache.reports import results, tables
for name in (*AGGREGATIONS, *MULTISCALE):
    make_aggregation(name).fit_transform([np.eye(3), np.ones((1, 3))])
for name in set(models.PROBES) - {"mlp"}:
    models.make_probe(name, "multiclass")[1].fit(np.eye(4), np.arange(4), standardise=True)
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
