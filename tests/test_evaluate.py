from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from stage_two_world import (
    EMOTION,
    GENRE,
    classes_world,
    dataset_of,
    features_of,
    random_tracks,
)

from tune_cache.aggregation.concat import Concat
from tune_cache.cache.ragged import Ragged
from tune_cache.datasets.base import Task
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.features import joined, read_features
from tune_cache.probes.models import PROBES, Ridge
from tune_cache.probes.result import ProbeResult
from tune_cache.probes.tasks import load_task

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def world():
    """Layer 4 of 2, 4, 7 carries the classes."""
    return classes_world(np.random.default_rng(21), layers=(2, 4, 7), signal=(4,))


def probe(world, **asked):
    data, features = world
    return run_probe(features, data, n_resamples=50, **asked)


def same_but_for_time(result):
    return dataclasses.replace(result, seconds={}, cost={})


def regression_world(rng, truth_of_test=None):
    labels = {
        split: [tuple(pair) for pair in rng.standard_normal((n, 2)).tolist()]
        for split, n in (("train", 50), ("val", 20), ("test", 30))
    }
    if truth_of_test is not None:
        labels["test"] = truth_of_test
    data = load_task(dataset_of(labels, task=EMOTION), EMOTION)
    layers = {}
    for split, part in data.splits.items():
        tracks = random_tracks(rng, len(part), dim=4)
        tracks.values[:, :2] += np.repeat(3 * part.truth, tracks.lengths, axis=0)
        layers[split] = tracks
    return data, features_of({0: layers})


def test_best_finds_the_layer_that_carries_the_signal(world):
    (result,) = probe(world)
    assert (result.layer, result.layer_asked) == ("4", "best")
    assert result.scores["test"]["accuracy"].value > 0.9
    assert result.scores["test"]["accuracy"].low > 0.7
    assert [layer for layer, _ in result.layer_curve] == ["2", "4", "7"]
    assert max(result.layer_curve, key=lambda item: item[1])[0] == "4"
    assert result.metric == "accuracy"
    assert result.n == {"train": 60, "val": 30, "test": 40}
    assert result.n_classes == 3
    assert result.probe == "logistic"
    assert result.params in result.grid
    assert result.seconds.keys() == {"read", "fit", "predict"}


def test_all_gives_one_result_a_layer_with_one_curve(world):
    results = probe(world, layer="all")
    assert [result.layer for result in results] == ["2", "4", "7"]
    assert len({result.layer_curve for result in results}) == 1
    (alone,) = probe(world, layer=7)
    assert results[2].scores == alone.scores
    assert results[2].predictions == alone.predictions


@pytest.mark.parametrize(
    ("asked", "used"),
    [("last", "7"), ("4", "4"), (2, "2"), ("-1", "7"), (-3, "2"), ("mean", "mean")],
)
def test_layers_are_found_by_every_policy(world, asked, used):
    (result,) = probe(world, layer=asked)
    assert result.layer == used


def test_mean_is_the_average_of_the_layers_vectors(world):
    data, features = world
    averaged = {
        split: Ragged(
            values=np.mean([features.of_layer(k)[split].values for k in (2, 4, 7)], axis=0),
            offsets=features.of_layer(2)[split].offsets,
            n_samples=features.of_layer(2)[split].n_samples,
        )
        for split in data.splits
    }
    (expected,) = probe((data, features_of({0: averaged})), layer=0)
    (found,) = probe(world, layer="mean")
    assert found.predictions == expected.predictions


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        (3, TaskError, r"layer 3 is not in the store, which keeps \[2, 4, 7\]"),
        (-4, TaskError, "layer -4 is not"),
        ("middle", UsageError, "'middle', expected an index or one of best"),
    ],
)
def test_a_layer_that_is_not_there_is_refused(world, asked, error, match):
    with pytest.raises(error, match=match):
        probe(world, layer=asked)


def test_choices_never_look_at_test_labels(world):
    data, features = world
    shuffled = dataclasses.replace(
        data.splits["test"], truth=np.random.default_rng(0).permutation(data.splits["test"].truth)
    )
    corrupt = dataclasses.replace(data, splits={**data.splits, "test": shuffled})
    (honest,), (other,) = probe(world), probe((corrupt, features))
    assert (other.layer, other.params, other.layer_curve) == (
        honest.layer,
        honest.params,
        honest.layer_curve,
    )
    assert [p.prediction for p in other.predictions] == [p.prediction for p in honest.predictions]
    assert other.scores["val"] == honest.scores["val"]
    assert other.scores["test"] != honest.scores["test"]


@pytest.mark.parametrize("aggregation", ["mean", "concat"])
def test_nothing_is_fitted_to_held_out_vectors(world, aggregation):
    """One held-out track's prediction is the same whatever the others are."""
    data, features = world
    changed = {}
    for layer in features.layers:
        parts = dict(features.of_layer(layer))
        test = parts["test"][list(range(40))]
        test.values[test.offsets[1] :] = 1e3
        changed[layer] = {**parts, "test": test}
    (before,) = probe(world, aggregation=aggregation)
    (after,) = probe((data, features_of(changed)), aggregation=aggregation)
    assert [p for p in before.predictions if p.split == "val"] == [
        p for p in after.predictions if p.split == "val"
    ]
    name = data.splits["test"].track_ids[0]
    assert [p for p in before.predictions if p.track_id == name] == [
        p for p in after.predictions if p.track_id == name
    ]


def test_every_held_out_track_has_one_prediction(world):
    data, _ = world
    (result,) = probe(world)
    found = [(item.split, item.track_id) for item in result.predictions]
    expected = [(s, name) for s in ("val", "test") for name in data.splits[s].track_ids]
    assert found == expected
    right = [item.truth == item.prediction for item in result.predictions if item.split == "test"]
    assert np.mean(right) == result.scores["test"]["accuracy"].value


@pytest.mark.parametrize("name", ["logistic", "knn"])
def test_the_same_again_is_the_same(world, name):
    (one,), (two,) = probe(world, probe=name), probe(world, probe=name)
    assert same_but_for_time(one) == same_but_for_time(two)


def test_the_seed_draws_the_interval_and_nothing_else(world):
    (one,), (two,) = probe(world, layer=2, seed=1), probe(world, layer=2, seed=2)
    assert one.predictions == two.predictions
    assert one.scores["test"]["accuracy"] != two.scores["test"]["accuracy"]


def test_a_result_survives_json(world):
    (result,) = probe(world)
    again = ProbeResult.from_json(result.to_json(), result.predictions)
    assert again.to_json() == result.to_json()
    assert again == result


@pytest.mark.parametrize("name", ["ridge", "knn"])
def test_regression_scores_each_target_and_the_mean(name):
    (result,) = probe(regression_world(np.random.default_rng(3)), probe=name)
    scores = {metric: score.value for metric, score in result.scores["test"].items()}
    assert scores["r2"] == pytest.approx((scores["r2_arousal"] + scores["r2_valence"]) / 2)
    assert scores["r2"] > 0.5
    assert result.n_classes is None
    assert len(result.predictions[0].prediction) == 2


def test_an_undefined_score_is_nan_and_said():
    world = regression_world(np.random.default_rng(3), truth_of_test=[(0.5, 1.0), (0.5, 2.0)])
    (result,) = probe(world)
    assert math.isnan(result.scores["test"]["r2_arousal"].value)
    assert not math.isnan(result.scores["test"]["r2_valence"].value)
    assert any("r2, r2_arousal on test is undefined" in text for text in result.warnings)
    assert math.isnan(ProbeResult.from_json(result.to_json()).scores["test"]["r2"].value)


def test_validation_that_cannot_rank_is_refused():
    data, features = regression_world(np.random.default_rng(3))
    flat = dataclasses.replace(data.splits["val"], truth=np.ones((20, 2)))
    data = dataclasses.replace(data, splits={**data.splits, "val": flat})
    with pytest.raises(TaskError, match="r2 is undefined on the 20 validation tracks"):
        probe((data, features))


def test_classes_that_train_never_saw_count_as_errors():
    rng = np.random.default_rng(1)
    labels = {"train": ["a", "b"] * 20, "val": ["a", "b"] * 5, "test": ["a", "b", "new", "new"]}
    data = load_task(dataset_of(labels), GENRE)
    layer = {}
    for split, part in data.splits.items():
        tracks = random_tracks(rng, len(part))
        tracks.values[:, 0] = 5 * np.repeat(part.truth == 1, tracks.lengths)
        layer[split] = tracks
    (result,) = probe((data, features_of({0: layer})))
    assert result.scores["test"]["accuracy"].value == 0.5
    assert [item.truth for item in result.predictions][-2:] == ["new", "new"]
    assert any("2 of 4 test tracks have classes" in text for text in result.warnings)
    assert any("test has 4 groups" in text for text in result.warnings)


def one_segment(data, dim=8):
    rng = np.random.default_rng(2)
    return features_of(
        {
            0: {
                split: random_tracks(rng, len(part), dim=dim, lengths=(1, 1))
                for split, part in data.splits.items()
            }
        }
    )


def test_one_segment_a_track_is_flagged_and_makes_cells_equal(world):
    data, _ = world
    features = one_segment(data)
    results = [probe((data, features), aggregation=name)[0] for name in ("mean", "max", "concat")]
    for result in results:
        assert result.share_one_segment == 1
        assert result.flags == ("one-segment: mean ≡ max ≡ concat, std = 0",)
        assert [p.prediction for p in result.predictions] == [
            p.prediction for p in results[0].predictions
        ]


def test_flags_tell_what_segment_counts_do(world):
    (mean,) = probe(world, layer=2)
    assert 0 < mean.share_one_segment < 1
    assert [flag.partition(":")[0] for flag in mean.flags] == ["one-segment"]
    (top,) = probe(world, layer=2, aggregation="max")
    assert [flag.partition(":")[0] for flag in top.flags] == ["one-segment", "length-visible"]
    (cut,) = probe(world, layer=2, aggregation="concat", aggregation_options={"max_segments": 2})
    assert cut.aggregation_options == {"max_segments": 2}
    assert cut.n_features == 16
    assert "truncated" in cut.flags[-1]


def test_vectors_of_other_tracks_are_refused(world):
    data, features = world
    parts = dict(features.of_layer(2))
    with pytest.raises(TaskError, match="test has vectors of 39 tracks, expected 40"):
        probe((data, features_of({2: {**parts, "test": parts["test"][:39]}})))


class Store:
    """Counts what is read; rows carry their track's number and layer."""

    layers = (1, 5)
    n_segments = 0  # few: read at once

    def __init__(self):
        self.read_layers = []

    def read(self, track_ids, *, layers, pooling):
        assert pooling == "mean"
        self.read_layers += layers
        tracks = [
            np.full((1 + len(name) % 3, len(layers), 4), 10 * int(name[-4:]) + layers[0])
            for name in track_ids
        ]
        return Ragged.from_tracks([track.astype("f2") for track in tracks])


@pytest.mark.parametrize(("keep_bytes", "n_reads"), [(2**20, 2), (0, 4)])
def test_layers_are_read_once_while_there_is_room(keep_bytes, n_reads):
    data = load_task(dataset_of({"train": ["a", "b"], "val": ["a"], "test": ["b", "a"]}), GENRE)
    store = Store()
    features = read_features(store, data, keep_bytes=keep_bytes)
    for _ in range(2):
        for layer in store.layers:
            parts = features.of_layer(layer)
            assert [track[0, 0] for track in parts["test"]] == [layer, 10 + layer]
            assert {split: len(part) for split, part in parts.items()} == {
                "train": 2,
                "val": 1,
                "test": 2,
            }
    assert len(store.read_layers) == n_reads


def test_one_probe_reads_every_layer_once_whatever_the_room():
    data = load_task(
        dataset_of({"train": ["a", "b"] * 4, "val": ["a", "b"], "test": ["b", "a"]}), GENRE
    )
    for asked in ("best", "all", "mean"):
        store = Store()
        run_probe(read_features(store, data, keep_bytes=0), data, layer=asked, n_resamples=20)
        assert store.read_layers == [1, 5]


def without_validation(rng, n_train=60, kind="classes"):
    """Two tracks a group; the signal is in layer 4 of 2, 4."""
    labels = {"train": [f"c{n // 2 % 3}" for n in range(n_train)], "test": ["c0", "c1", "c2"] * 10}
    data = load_task(
        dataset_of(labels, groups=lambda split, number: f"{split}{number // 2}"), GENRE
    )
    by_layer = {layer: {} for layer in (2, 4)}
    for split, part in data.splits.items():
        for layer, found in by_layer.items():
            tracks = random_tracks(rng, len(part), dim=6)
            if layer == 4:
                tracks.values[:, :3] += np.repeat(4 * np.eye(3)[part.truth], tracks.lengths, axis=0)
            found[split] = tracks
    return data, features_of(by_layer)


def test_without_validation_choices_are_made_on_folds_of_train():
    data, features = without_validation(np.random.default_rng(1))
    (result,) = probe((data, features))
    assert result.layer == "4"
    assert result.scores["test"]["accuracy"].value > 0.9
    assert result.n == {"train": 60, "val": 60, "test": 30}
    assert any("no validation split" in text for text in result.warnings)
    assert [p.track_id for p in result.predictions if p.split == "val"] == list(
        data.splits["train"].track_ids
    )


def test_predictions_of_folds_are_those_of_models_that_never_saw_them():
    """By hand: fit on the other folds, predict one, and fit on all for test."""
    data, features = without_validation(np.random.default_rng(1))
    (result,) = probe((data, features), layer=4, probe="ridge", aggregation="concat")
    tracks, truth = features.of_layer(4), data.splits["train"].truth
    choice = result.grid.index(result.params)

    def fitted(rows):
        concat = Concat().fit(tracks["train"][rows])
        vectors = concat.transform(tracks["train"][rows])
        return concat, Ridge().fit(vectors, truth[rows], standardise=False)

    expected = np.zeros(60, dtype=int)
    for fold in range(5):
        concat, model = fitted(np.flatnonzero(data.folds != fold))
        rows = np.flatnonzero(data.folds == fold)
        expected[rows] = model.predict(concat.transform(tracks["train"][rows]), choice)
    found = [p.prediction for p in result.predictions if p.split == "val"]
    assert found == [data.classes[number] for number in expected]
    concat, model = fitted(np.arange(60))
    test = model.predict(concat.transform(tracks["test"]), choice)
    found = [p.prediction for p in result.predictions if p.split == "test"]
    assert found == [data.classes[number] for number in test]


def test_settings_that_a_fold_cannot_support_are_no_choice():
    data, features = without_validation(np.random.default_rng(1), n_train=36)
    (result,) = probe((data, features), probe="knn")
    assert max(params["k"] for params in result.grid) == 15  # 31 of 36, but not of 28


TAGS = Task(name="tags", label="tags", kind="multilabel")


def tagged(rng, n=(80, 40, 60)):
    """Tag t is on where dimension t is large; some tracks have none."""
    draws = {split: rng.random((k, 3)) < 0.3 for split, k in zip(SPLITS, n, strict=True)}
    labels = {
        split: [tuple(f"t{tag}" for tag in np.flatnonzero(row)) for row in rows]
        for split, rows in draws.items()
    }
    data = load_task(dataset_of(labels, task=TAGS), TAGS)
    layer = {}
    for split, part in data.splits.items():
        tracks = random_tracks(rng, len(part), dim=6)
        tracks.values[:, :3] += np.repeat(3 * part.truth, tracks.lengths, axis=0)
        layer[split] = tracks
    return data, features_of({0: layer})


@pytest.mark.parametrize("name", list(PROBES))
def test_every_probe_ranks_tags(name):
    data, features = tagged(np.random.default_rng(3))
    (result,) = probe((data, features), probe=name)
    scores = result.scores["test"]
    assert scores["roc_auc"].low > 0.8
    assert 0.6 < scores["ap"].value < scores["roc_auc"].value
    assert result.metric == "roc_auc"
    assert result.classes == ("t0", "t1", "t2")
    truth = [item.truth for item in result.predictions if item.split == "test"]
    assert (0.0, 0.0, 0.0) in truth
    prediction = np.array([i.prediction for i in result.predictions if i.split == "test"])
    assert roc_auc_score(np.array(truth), prediction) == pytest.approx(scores["roc_auc"].value)


def test_a_tag_without_positives_in_test_is_in_no_mean_and_said():
    data, features = tagged(np.random.default_rng(3))
    truth = data.splits["test"].truth.copy()
    truth[:, 1] = 0
    test = dataclasses.replace(data.splits["test"], truth=truth)
    (result,) = probe((dataclasses.replace(data, splits={**data.splits, "test": test}), features))
    assert not math.isnan(result.scores["test"]["roc_auc"].value)
    assert any("1 of 3 tags are on none or on all of the 60 test" in w for w in result.warnings)


def test_a_confusion_matrix_counts_test_tracks_by_class(world):
    (result,) = probe(world, layer=2)
    assert result.classes == ("c0", "c1", "c2")
    counts = np.zeros((3, 3), dtype=int)
    for item in result.predictions:
        if item.split == "test":
            counts[result.classes.index(item.truth), result.classes.index(item.prediction)] += 1
    assert result.confusion == tuple(map(tuple, counts.tolist()))
    again = ProbeResult.from_json(result.to_json())
    assert again.confusion == result.confusion


def test_any_estimator_is_a_probe(world):
    text = "sklearn.tree.DecisionTreeClassifier(max_depth={1, 3})"
    (result,) = probe(world, probe=text)
    assert result.probe == text
    assert result.grid == ({"max_depth": 1}, {"max_depth": 3})
    assert result.scores["test"]["accuracy"].value > 0.6


def test_what_stage_two_costs_is_told(world):
    (result,) = probe(world, aggregation="concat")
    assert result.cost.keys() == {
        "seconds_predict_per_1000", "peak_fit_bytes", "peak_predict_bytes",
    }  # fmt: skip
    assert 0 < result.cost["seconds_predict_per_1000"] < 100
    # the vectors of train in float32 and in float64 at the least
    assert result.cost["peak_fit_bytes"] > 60 * result.n_features * (4 + 8)
    results = probe(world, layer="all")
    assert len({one.cost["peak_fit_bytes"] for one in results}) == 1


def test_a_result_of_an_older_version_reads_without_what_it_lacks(world):
    (result,) = probe(world)
    old = result.to_json()
    for name in ("cost", "classes", "targets", "confusion", "shots", "repeat_scores"):
        del old[name]
    again = ProbeResult.from_json(old)
    assert (again.cost, again.classes, again.confusion, again.shots) == ({}, (), (), None)


def test_scales_are_joined_track_by_track(world):
    data, features = world
    rng = np.random.default_rng(9)
    tracks = {split: random_tracks(rng, len(part)) for split, part in data.splits.items()}
    noise = features_of({4: tracks, 7: tracks})
    both = joined([noise, features])
    assert both.layers == (4, 7)
    (result,) = probe((data, both), aggregation="multiscale-concat")
    assert result.layer == "4"
    assert result.n_features == 16
    assert result.scores["test"]["accuracy"].value > 0.9
    (mean,) = probe((data, both), aggregation="multiscale-mean", layer="mean")
    assert mean.n_features == 8


def test_scales_need_two_lengths_and_a_common_layer(world):
    _, features = world
    with pytest.raises(UsageError, match="two segment lengths or more, found one"):
        joined([features])
    other = features_of({3: features.of_layer(2)})
    with pytest.raises(TaskError, match="no layer in common"):
        joined([features, other])
