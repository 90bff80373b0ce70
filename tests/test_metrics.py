from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, r2_score

from tune_cache.probes.metrics import metrics_of, score
from tune_cache.probes.statistics import bootstrap_interval

ACCURACY, MACRO_F1 = metrics_of("multiclass", ())
R2, R2_A, R2_V = metrics_of("regression", ("a", "v"))


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


def test_interval_equals_a_loop_over_resamples():
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((40, 2))
    prediction = truth + rng.standard_normal((40, 2))
    groups = [f"g{number % 13}" for number in range(40)]
    names, group_of = np.unique(groups, return_inverse=True)
    draws = np.random.default_rng(7).integers(len(names), size=(200, len(names)))
    scores = []
    for drawn in draws:
        rows = np.concatenate([np.flatnonzero(group_of == group) for group in drawn])
        scores.append(r2_score(truth[rows], prediction[rows]))
    found = score(R2, truth, prediction, groups, seed=7, n_resamples=200)
    assert [found.low, found.high] == pytest.approx(np.percentile(scores, [2.5, 97.5]))
    assert found.value == pytest.approx(r2_score(truth, prediction))


def test_interval_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    terms = np.column_stack([np.arange(50) % 3 == 0, np.ones(50)]).astype(float)
    groups = list(map(str, range(50)))
    whole = bootstrap_interval(terms, groups, ACCURACY.reduce, seed=3)
    monkeypatch.setattr("tune_cache.probes.statistics.DRAWS_AT_ONCE", 700)
    assert bootstrap_interval(terms, groups, ACCURACY.reduce, seed=3) == whole


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
