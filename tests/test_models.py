from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.metrics import log_loss, pairwise_distances
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.models import (
    KNN,
    PROBES,
    LinearSVM,
    Logistic,
    NearestCentroid,
    Ridge,
    make_probe,
)

SHAPES = [(80, 12), (30, 90), (40, 40)]  # more tracks, more features, as many


def plain(model, standardise):
    return make_pipeline(StandardScaler(), model) if standardise else model


COLLINEAR = (60, -25)  # 25 features that are 5, but for a millionth


@pytest.fixture(params=SHAPES, ids=str)
def world(request):
    rng = np.random.default_rng(8)
    n, p = request.param
    X = rng.standard_normal((n, abs(p)))
    if p < 0:
        X = rng.standard_normal((n, 5)) @ rng.standard_normal((5, -p)) + 1e-6 * X
        return X, X[:20], rng
    X = X * rng.uniform(0.1, 10, p) + rng.uniform(-20, 20, p)
    return X, X[:20] + rng.standard_normal((20, p)), rng


@pytest.mark.parametrize("world", [*SHAPES, COLLINEAR], ids=str, indirect=True)
@pytest.mark.parametrize("standardise", [True, False])
def test_ridge_equals_scikit_learn_at_every_strength(world, standardise):
    X, new, rng = world
    y = rng.standard_normal((len(X), 2)) + X[:, :2] + [5, -3]
    ours = Ridge().fit(X, y, standardise=standardise)
    for choice, (params, found) in enumerate(zip(ours.grid, ours.predict_all(new), strict=True)):
        theirs = plain(PlainRidge(alpha=params["alpha"]), standardise).fit(X, y)
        np.testing.assert_allclose(found, theirs.predict(new), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(ours.predict(new, choice), found)


@pytest.mark.parametrize("world", [*SHAPES[:2], COLLINEAR], ids=str, indirect=True)
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


@pytest.mark.parametrize("world", SHAPES[:2], ids=str, indirect=True)
def test_tags_are_as_many_plain_regressions(world):
    """Each tag's margins, and loss, beside scikit-learn's, for common and rare tags."""
    X, new, rng = world
    y = (rng.random((len(X), 4)) < [0.5, 0.3, 0.1, 0.6]).astype(float)
    y[0] = 1
    ours = Logistic().fit(X, y, standardise=True)

    def loss(margins, tag, coefficients, C):
        wrong = np.logaddexp(0, np.where(y[:, tag] > 0, -margins, margins)).mean()
        return wrong + np.square(coefficients).sum() / 2 / C / len(X)

    for choice, params in enumerate(ours.grid):
        found = ours.predict(new, choice)
        planes, offsets = ours._planes[choice]
        for tag in range(4):
            theirs = plain(LogisticRegression(C=params["C"], max_iter=5000, tol=1e-8), True)
            expected = theirs.fit(X, y[:, tag]).decision_function(new)
            np.testing.assert_allclose(found[:, tag], expected, rtol=0.03, atol=0.03)
            margins = (ours._locate(X) @ planes + offsets)[:, tag]
            expected = loss(theirs.decision_function(X), tag, theirs[-1].coef_, params["C"])
            assert loss(margins, tag, planes[:, tag], params["C"]) == pytest.approx(
                expected, abs=1e-4
            )


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_svm_equals_scikit_learn_s_in_loss_with_a_free_intercept(world, n_classes):
    X, _, rng = world
    y = rng.integers(n_classes, size=len(X))
    sign = np.where(y[:, None] == np.arange(n_classes), 1, -1)
    ours = LinearSVM().fit(X, y, standardise=True)
    scaled = StandardScaler().fit_transform(X)

    def loss(margins, planes, C):
        return (np.maximum(1 - sign * margins, 0) ** 2).mean(axis=0) + (planes**2).sum(axis=0) / (
            2 * C * len(X)
        )

    for choice, params in enumerate(ours.grid):
        planes, offsets = ours._planes[choice]
        found = loss(ours._locate(X) @ planes + offsets, planes, params["C"])
        for number in range(n_classes):
            # a large scaling all but frees the intercept, which liblinear penalises
            theirs = LinearSVC(
                C=params["C"], intercept_scaling=1e4, dual=False, tol=1e-9, max_iter=10_000
            ).fit(scaled, y == number)
            margins = theirs.decision_function(scaled)[:, None]
            expected = loss(margins, theirs.coef_.T, params["C"])[number]
            assert found[number] == pytest.approx(expected, abs=1e-4)


def test_a_tag_that_all_or_no_tracks_have_is_no_trouble():
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((30, 5)), np.zeros((30, 3))
    y[:, 1], y[::2, 2] = 1, 1
    for name in set(PROBES) | {"sklearn.linear_model.LogisticRegression"}:
        _, probe = make_probe(name, "multilabel")
        scores = probe.fit(X, y, standardise=True).predict_all(X)
        assert all(np.isfinite(one).all() and one.shape == (30, 3) for one in scores)


@pytest.mark.parametrize("name", sorted(PROBES))
def test_classes_that_this_training_lacks_keep_their_numbers(name):
    """A fold, or a few shots, may lack a class; numbers are those of the task."""
    _, probe = make_probe(name, "multiclass")
    X = np.repeat([[5.0, 0, 0], [0, 5.0, 0], [0, 0, 5.0]], 4, axis=0)
    X += 0.1 * np.random.default_rng(0).standard_normal(X.shape)
    y = np.repeat([1, 4, 5], 4)
    probe.fit(X, y, standardise=True)
    best = [(one == y).mean() for one in probe.predict_all(X)]
    assert max(best) == 1


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_centroids_equal_a_loop_over_classes(world, metric):
    X, new, rng = world
    y = rng.integers(3, size=len(X))
    ours = NearestCentroid().fit(X, y, standardise=True)
    scaler = StandardScaler().fit(X)
    centres = np.array([scaler.transform(X[y == k]).mean(axis=0) for k in range(3)])
    choice = [params["metric"] for params in ours.grid].index(metric)
    expected = pairwise_distances(scaler.transform(new), centres, metric=metric).argmin(axis=1)
    np.testing.assert_array_equal(ours.predict(new, choice), expected)
    tags = NearestCentroid().fit(X, np.eye(3)[y], standardise=True).predict(new, choice)
    rest = np.array([scaler.transform(X[y != k]).mean(axis=0) for k in range(3)])
    away = [pairwise_distances(scaler.transform(new), side, metric) for side in (centres, rest)]
    power = 2 if metric == "euclidean" else 1
    np.testing.assert_allclose(tags, away[1] ** power - away[0] ** power, atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_ridge_classifies_as_scikit_learn_s(world, n_classes):
    X, new, rng = world
    y = rng.integers(n_classes, size=len(X))
    ours = Ridge().fit(X, y, standardise=True)
    for choice, params in enumerate(ours.grid):
        theirs = plain(RidgeClassifier(alpha=params["alpha"]), True).fit(X, y)
        assert (ours.predict(new, choice) == theirs.predict(new)).mean() >= 0.95


def test_an_estimator_goes_by_its_path_and_settings():
    text = 'sklearn.svm.SVC(kernel="rbf", C={0.1, 10}, gamma={"scale", 0.5})'
    name, probe = make_probe(text, "multiclass")
    assert name == text
    assert probe.grid == (
        {"C": 0.1, "gamma": "scale"}, {"C": 0.1, "gamma": 0.5},
        {"C": 10, "gamma": "scale"}, {"C": 10, "gamma": 0.5},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), rng.integers(2, size=40)
    probe.fit(X, y, standardise=True)
    scaler = StandardScaler().fit(X)
    expected = SVC(C=10, gamma=0.5).fit(scaler.transform(X), y).predict(scaler.transform(X))
    np.testing.assert_array_equal(probe.predict(X, 3), expected)
    np.testing.assert_array_equal(probe.predict_all(X)[3], expected)


@pytest.mark.parametrize(
    "text", ["sklearn.ensemble.RandomForestRegressor(n_estimators=3)", "sklearn.svm.SVR"]
)
@pytest.mark.parametrize("n_targets", [1, 2])
def test_estimators_learn_targets_together_or_one_by_one(text, n_targets):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = np.column_stack([X[:, 0], -X[:, 1]])[:, :n_targets]
    found = make_probe(text, "regression")[1].fit(X, y, standardise=True).predict(X, 0)
    assert found.shape == y.shape
    assert np.mean((found - y) ** 2) < 0.5


def test_an_estimator_of_chance_takes_the_seed():
    text = "sklearn.ensemble.RandomForestClassifier(n_estimators=5)"
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), rng.integers(2, size=60)
    one, same, other = (
        make_probe(text, "multiclass", seed=seed)[1].fit(X, y, standardise=True).predict(X, 0)
        for seed in (1, 1, 2)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_an_estimator_that_does_not_converge_says_so():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 5)), rng.integers(3, size=60)
    _, probe = make_probe("sklearn.linear_model.LogisticRegression(max_iter=1)", "multiclass")
    (text,) = probe.fit(X, y, standardise=True).warnings
    assert text.endswith("did not converge: 1 warnings")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sklearn.svm.NoSuch", "cannot be made"),
        ("no_such_package.Model", "cannot be made"),
        ("os.abort", "is no scikit-learn estimator"),
        ("sklearn.preprocessing.StandardScaler", "is no scikit-learn estimator"),
        ("sklearn.svm.SVC(1)", "parameters go by name"),
        ("sklearn.svm.SVC(**{})", "parameters go by name"),
        ("sklearn.svm.SVC(C=open('x'))", "expected a dotted path with literal settings"),
        ("sklearn.svm.SVC(", "expected a dotted path with literal settings"),
        ("sklearn.svm.SVC(D=1)", "has no parameter 'D'"),
        ("sklearn.svm.SVC().fit", "is no dotted path"),
    ],
)
def test_what_is_no_estimator_is_refused(text, match):
    with pytest.raises(UsageError, match=match):
        make_probe(text, "multiclass")


def test_an_estimator_of_another_kind_or_with_bad_settings_is_refused():
    with pytest.raises(TaskError, match="cannot learn a regression task: it is no regressor"):
        make_probe("sklearn.svm.SVC", "regression")
    _, probe = make_probe("sklearn.svm.SVC(C=-1.0)", "multiclass")
    with pytest.raises(TaskError, match="cannot be fitted with"):
        probe.fit(np.eye(4), np.arange(4) % 2, standardise=True)


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
        ("auto", "multilabel", "logistic"),
        ("knn", "regression", "knn"),
        ("knn", "multiclass", "knn"),
    ],
)
def test_auto_chooses_by_the_kind_of_task(name, kind, made):
    assert make_probe(name, kind)[0] == made


def test_probes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="probe is 'swm', expected auto or one of") as caught:
        make_probe("swm", "multiclass")
    assert caught.value.hint == "did you mean 'svm'?"
    with pytest.raises(TaskError, match="'logistic' cannot learn a regression task") as caught:
        make_probe("logistic", "regression")
    assert "ridge" in caught.value.hint


def test_grids_go_from_the_simplest_model():
    order = ((Ridge, "alpha", -1), (Logistic, "C", 1), (LinearSVM, "C", 1), (KNN, "k", -1))
    for probe, name, sign in order:
        values = [params[name] for params in probe().grid]
        assert values == sorted(values, key=lambda value: sign * value)
