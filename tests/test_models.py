from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.models import KNN, Logistic, Ridge, make_probe

SHAPES = [(80, 12), (30, 90), (40, 40)]  # more tracks, more features, as many


def plain(model, standardise):
    return make_pipeline(StandardScaler(), model) if standardise else model


@pytest.fixture(params=SHAPES, ids=str)
def world(request):
    rng = np.random.default_rng(8)
    n, p = request.param
    X = rng.standard_normal((n, p)) * rng.uniform(0.1, 10, p) + rng.uniform(-20, 20, p)
    return X, X[:20] + rng.standard_normal((20, p)), rng


@pytest.mark.parametrize("standardise", [True, False])
def test_ridge_equals_scikit_learn_at_every_strength(world, standardise):
    X, new, rng = world
    y = rng.standard_normal((len(X), 2)) + X[:, :2] + [5, -3]
    ours = Ridge().fit(X, y, standardise=standardise)
    for choice, (params, found) in enumerate(zip(ours.grid, ours.predict_all(new), strict=True)):
        theirs = plain(PlainRidge(alpha=params["alpha"]), standardise).fit(X, y)
        np.testing.assert_allclose(found, theirs.predict(new), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(ours.predict(new, choice), found)


@pytest.mark.parametrize("world", SHAPES[:2], ids=str, indirect=True)
@pytest.mark.parametrize(("standardise", "n_classes"), [(True, 2), (True, 4), (False, 3)])
def test_logistic_equals_scikit_learn_in_loss(world, standardise, n_classes):
    X, new, rng = world
    X, new = (X, new) if standardise else (X / 30, new / 30)
    y = rng.integers(n_classes, size=len(X))
    ours = Logistic().fit(X, y, standardise=standardise)
    assert ours.warnings == ()
    located = ours._locate(X)
    for choice, params in enumerate(ours.grid):
        theirs = plain(LogisticRegression(C=params["C"], max_iter=5000), standardise).fit(X, y)
        normals, offsets = ours._planes[choice]
        margins = located @ normals + offsets
        if n_classes == 2:
            margins = np.hstack([-margins / 2, margins / 2])
        odds = np.exp(margins - margins.max(axis=1, keepdims=True))
        size = (normals**2).sum() / 2 / params["C"] / len(X)
        loss = log_loss(y, odds / odds.sum(axis=1, keepdims=True)) + size
        coefficients = (theirs[-1] if standardise else theirs).coef_
        expected = log_loss(y, theirs.predict_proba(X))
        expected += (coefficients**2).sum() / 2 / params["C"] / len(X)
        assert loss == pytest.approx(expected, abs=1e-4)
        assert (ours.predict(new, choice) == theirs.predict(new)).mean() >= 0.95


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_equal_scikit_learn(world, metric):
    X, new, rng = world
    classes, targets = rng.integers(3, size=len(X)), rng.standard_normal((len(X), 2))
    for y, model in ((classes, KNeighborsClassifier), (targets, KNeighborsRegressor)):
        ours = KNN().fit(X, y, standardise=True)
        for params, found in zip(ours.grid, ours.predict_all(new), strict=True):
            theirs = model(params["k"], metric=params["metric"], algorithm="brute")
            expected = plain(theirs, True).fit(X, y).predict(new)
            np.testing.assert_allclose(found, expected)
    assert np.array_equal(ours.predict(new, 3), ours.predict_all(new)[3])


def test_more_neighbours_than_tracks_are_dropped_from_the_grid():
    probe = KNN().fit(np.eye(4), np.arange(4), standardise=False)
    assert {params["k"] for params in probe.grid} == {1, 3}
    assert {params["k"] for params in KNN().grid} == {1, 3, 5, 9, 15, 31}


def test_scaling_sees_training_rows_only():
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((50, 3)), rng.standard_normal((50, 1))
    probe = Ridge().fit(X, y, standardise=True)
    one = probe.predict(X[:1], 3)
    np.testing.assert_allclose(probe.predict(np.vstack([X[:1], 1e9 * X[1:]]), 3)[:1], one)


@pytest.mark.parametrize("shape", [(10, 4), (4, 10)])
def test_vectors_that_are_all_alike_predict_the_mean_or_a_class(shape):
    X = np.full(shape, 3.3)
    y = np.arange(shape[0]) % 2
    assert set(Logistic().fit(X, y, standardise=True).predict(X, 0)) <= {0, 1}
    found = Ridge().fit(X, y[:, None].astype(float), standardise=True).predict(X, 0)
    np.testing.assert_allclose(found, 0.5)


def test_a_probe_that_stops_early_says_so():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 5)), rng.integers(3, size=60)
    (text,) = Logistic(max_iter=1).fit(X, y, standardise=True).warnings
    assert re.search(r"stopped after 1 steps at [1-6] of 6 strengths", text)


@pytest.mark.parametrize(
    ("name", "kind", "made"),
    [
        ("auto", "multiclass", "logistic"),
        ("auto", "regression", "ridge"),
        ("knn", "regression", "knn"),
        ("knn", "multiclass", "knn"),
    ],
)
def test_auto_chooses_by_the_kind_of_task(name, kind, made):
    assert make_probe(name, kind)[0] == made


def test_probes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="probe is 'svm', expected auto or one of"):
        make_probe("svm", "multiclass")
    with pytest.raises(TaskError, match="'ridge' cannot learn a multiclass task") as caught:
        make_probe("ridge", "multiclass")
    assert "logistic" in caught.value.hint


def test_grids_go_from_the_simplest_model():
    for probe, name, sign in ((Ridge, "alpha", -1), (Logistic, "C", 1), (KNN, "k", -1)):
        values = [params[name] for params in probe().grid]
        assert values == sorted(values, key=lambda value: sign * value)
