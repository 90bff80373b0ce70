from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from tune_cache.errors import TaskError
from tune_cache.probes.metrics import DEFAULT_METRICS, METRICS, metrics_of, score
from tune_cache.probes.metrics import confusion_matrix as our_confusion

ACCURACY, MACRO_F1 = metrics_of("multiclass", ())
R2, R2_A, R2_V = metrics_of("regression", ("a", "v"))
ROC_AUC, AP = metrics_of("multilabel", ())
TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = [f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=30))
def test_class_metrics_equal_scikit_learn(pairs):
    truth, prediction = np.array(pairs).T
    assert ACCURACY(truth, prediction) == pytest.approx(accuracy_score(truth, prediction))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = f1_score(truth, prediction, average="macro", zero_division=0)
    assert MACRO_F1(truth, prediction) == pytest.approx(expected)


def test_r2_equals_scikit_learn_per_target_and_in_the_mean():
    rng = np.random.default_rng(0)
    truth = 1e4 + rng.standard_normal((50, 2))
    prediction = truth + rng.standard_normal((50, 2)) * [0.3, 2.0]
    each = r2_score(truth, prediction, multioutput="raw_values")
    assert R2_A(truth, prediction) == pytest.approx(each[0], rel=1e-9)
    assert R2_V(truth, prediction) == pytest.approx(each[1], rel=1e-9)
    assert R2(truth, prediction) == pytest.approx(each.mean(), rel=1e-9)


def test_r2_is_undefined_where_truth_does_not_vary():
    truth = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])
    assert math.isnan(R2_A(truth, truth))
    assert R2_V(truth, truth) == 1
    assert math.isnan(R2(truth, truth))
    assert math.isnan(R2_V(truth[:1], truth[:1]))


def test_interval_of_r2_equals_a_loop_over_groups_left_out():
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((40, 2))
    prediction = truth + rng.standard_normal((40, 2))
    groups = [f"g{number % 13}" for number in range(40)]
    names, group_of = np.unique(groups, return_inverse=True)
    found = score(R2, truth, prediction, groups, seed=7)
    value = r2_score(truth, prediction)
    assert found.value == pytest.approx(value)
    left_out = [
        r2_score(truth[group_of != k], prediction[group_of != k]) for k in range(len(names))
    ]
    pseudo = 13 * np.log(1 - value) - 12 * np.log(1 - np.array(left_out))
    sizes = np.bincount(group_of)
    n = sizes.sum() ** 2 / (sizes**2).sum()
    error = np.std(pseudo, ddof=1) / np.sqrt(13) * t.ppf(0.975, n - 1)
    expected = [1 - (1 - value) * np.exp(error), 1 - (1 - value) * np.exp(-error)]
    assert [found.low, found.high] == pytest.approx(expected)


def test_more_groups_than_a_thousand_are_left_out_in_blocks():
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((3000, 1))
    prediction = truth + rng.standard_normal((3000, 1))
    (metric,) = metrics_of("regression", ("a",), ("r2",))
    found = score(metric, truth, prediction, list(map(str, range(3000))), seed=1)
    errors = (truth - prediction) ** 2
    influence = errors[:, 0] / errors.mean() - truth[:, 0] ** 2 / np.mean(truth**2)
    expected = 1.96 * np.std(influence) / np.sqrt(3000)
    assert np.log((1 - found.low) / (1 - found.high)) / 2 == pytest.approx(expected, rel=0.05)


def test_interval_of_accuracy_equals_a_loop_over_resamples_with_two_groups_more():
    rng = np.random.default_rng(1)
    number = rng.integers(13, size=40)
    right = (rng.random(40) < 0.8).astype(int)
    size = 40 / 13
    scores = []
    for drawn in np.random.default_rng(7).integers(15, size=(300, 15)):
        points = sum(right[number == group].sum() for group in drawn)
        points += size * np.sum(drawn == 13)
        n_tracks = sum((number == group).sum() for group in drawn if group < 13)
        scores.append(points / (n_tracks + size * np.sum(drawn >= 13)))
    names = [f"g{group:02}" for group in number]
    found = score(ACCURACY, np.ones(40, int), right, names, seed=7, n_resamples=300)
    assert found.value == pytest.approx(right.mean())
    assert [found.low, found.high] == pytest.approx(np.percentile(scores, [2.5, 97.5]))


def test_all_right_is_no_certainty():
    everything = np.zeros(20, dtype=int)
    found = score(ACCURACY, everything, everything, list(map(str, range(20))), seed=1)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.8 < found.low < 0.95


def test_interval_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    truth, prediction = np.zeros(50, dtype=int), (np.arange(50) % 3 == 0).astype(int)
    groups = list(map(str, range(50)))
    whole = score(ACCURACY, truth, prediction, groups, seed=3)
    monkeypatch.setattr("tune_cache.probes.statistics.bootstrap.DRAWS_AT_ONCE", 700)
    assert score(ACCURACY, truth, prediction, groups, seed=3) == whole


def test_clips_of_one_song_make_the_interval_wider():
    truth = np.zeros(200, dtype=int)
    prediction = (np.arange(200) // 10) % 2  # songs of ten clips are right or wrong together
    clips = score(ACCURACY, truth, prediction, list(map(str, range(200))), seed=1)
    songs = score(ACCURACY, truth, prediction, [str(n // 10) for n in range(200)], seed=1)
    assert songs.high - songs.low > 2 * (clips.high - clips.low)


def test_one_group_has_no_interval():
    found = score(ACCURACY, np.array([0, 1]), np.array([0, 0]), ["g", "g"], seed=1)
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_no_defined_resample_has_no_interval():
    one = np.array([[1.0, 2.0]])
    both = np.concatenate([one, one])
    assert math.isnan(score(R2, both, both, ["a", "b"], seed=1).low)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(200):
        right = rng.random(150) < 0.7
        found = score(
            ACCURACY,
            np.ones(150, dtype=int),
            right.astype(int),
            range(150),
            seed=1,
            n_resamples=300,
        )
        hits += found.low <= 0.7 <= found.high
    assert 0.9 <= hits / 200 <= 0.99


def test_rmse_equals_scikit_learn_per_target_and_in_the_mean():
    rng = np.random.default_rng(0)
    truth, prediction = rng.standard_normal((2, 50, 2))
    _, rmse, each_a, each_v = metrics_of("regression", ("a", "v"), ("rmse", "rmse_each"))
    each = root_mean_squared_error(truth, prediction, multioutput="raw_values")
    assert [each_a(truth, prediction), each_v(truth, prediction)] == pytest.approx(each)
    assert rmse(truth, prediction) == pytest.approx(each.mean())


def test_choices_are_made_by_a_metric_that_is_better_when_larger():
    names = [metric.name for metric in metrics_of("regression", ("a", "v"), ("rmse",))]
    assert names == ["r2", "rmse"]
    names = [metric.name for metric in metrics_of("regression", ("a",), ("rmse", "r2_a", "r2"))]
    assert names == ["r2_a", "rmse", "r2"]
    for kind in METRICS:
        assert metrics_of(kind, ("a",))[0].larger_is_better


@pytest.mark.parametrize(
    ("metric", "plain"), [(ROC_AUC, roc_auc_score), (AP, average_precision_score)]
)
def test_tag_metrics_equal_scikit_learn_over_the_tags_that_have_one(metric, plain):
    rng = np.random.default_rng(4)
    truth = (rng.random((60, 5)) < 0.3).astype(float)
    truth[:, 3], truth[:, 4] = 0, 1  # no positive; no negative
    scores = rng.standard_normal((60, 5)).round(1)  # with ties
    each = [plain(truth[:, tag], scores[:, tag]) for tag in range(3)]
    assert metric(truth, scores) == pytest.approx(np.mean(each))
    assert math.isnan(metric(truth[:, 3:], scores[:, 3:]))


def test_interval_of_a_tag_metric_equals_a_loop_over_resamples():
    rng = np.random.default_rng(5)
    truth = (rng.random((40, 3)) < 0.4).astype(float)
    scores = truth + rng.standard_normal((40, 3))
    draws = np.random.default_rng(9).integers(40, size=(100, 40))
    groups = [f"{number:02}" for number in range(40)]
    each = [roc_auc_score(truth[rows], scores[rows]) for rows in draws]
    found = score(ROC_AUC, truth, scores, groups, seed=9, n_resamples=100)
    shift = norm.ppf(np.mean(np.array(each) < found.value))
    widened = t.ppf(0.975, 39) * np.sqrt(40 / 39)
    shares = norm.cdf([2 * shift - widened, 2 * shift + widened])
    assert [found.low, found.high] == pytest.approx(np.quantile(each, shares))


def test_weighted_key_equals_mir_eval_over_all_pairs_of_keys():
    from mir_eval.key import weighted_score

    metric, _ = metrics_of("multiclass", (), ("weighted_key", "accuracy"), classes=KEYS)
    pairs = [(true, found) for true in range(24) for found in range(24)]
    expected = [weighted_score(KEYS[true], KEYS[found]) for true, found in pairs]
    found = [metric(np.array([true]), np.array([guess])) for true, guess in pairs]
    np.testing.assert_allclose(found, expected)
    assert sorted(set(expected)) == [0.0, 0.2, 0.3, 0.5, 1.0]
    everything = np.array(pairs).T
    assert metric(*everything) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    ("written", "same"), [("F#:min", "Gb minor"), ("c# MAJOR", "Db major"), ("Bb_min", "A# minor")]
)
def test_keys_may_be_written_in_several_ways(written, same):
    (metric,) = metrics_of("multiclass", (), ("weighted_key",), classes=[written, same])
    assert metric(np.array([0]), np.array([1])) == 1


def test_classes_that_are_no_keys_have_no_key_score():
    with pytest.raises(TaskError, match="weighted_key needs classes that are keys, found 'loud'"):
        metrics_of("multiclass", (), ("weighted_key",), classes=["C major", "loud"])


def test_a_confusion_matrix_has_the_truth_in_its_rows():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(4, size=(2, 50))
    expected = confusion_matrix(truth, prediction, labels=range(5))
    np.testing.assert_array_equal(our_confusion(truth, prediction, 5), expected)


def test_a_mean_over_models_has_an_interval_that_models_widen():
    rng = np.random.default_rng(0)
    truth = np.zeros(400, dtype=int)
    models = [(rng.random(400) < share).astype(int) for share in (0.1, 0.3, 0.5, 0.7)]
    groups = list(map(str, range(400)))
    alone = score(ACCURACY, truth, models[1], groups, seed=1)
    several = score(ACCURACY, truth, models, groups, seed=1)
    assert several.value == pytest.approx(np.mean([1 - model.mean() for model in models]))
    assert several.high - several.low > 2 * (alone.high - alone.low)
    assert score(ACCURACY, truth, [models[1]], groups, seed=1) == alone


@pytest.mark.parametrize("kind", METRICS)
def test_every_kind_has_defaults_and_tells_its_metrics(kind):
    assert set(DEFAULT_METRICS[kind]) <= set(METRICS[kind])
    with pytest.raises(TaskError, match=f"expected one of {METRICS[kind][0]}.* for {kind}"):
        metrics_of(kind, ("a",), ("loudness",))
