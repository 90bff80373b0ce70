"""Light supervised models, each fitted at every strength of its grid at once.

Conventions
-----------
``X`` is (n_tracks, n_features); ``y`` is classes 0 … n - 1, all of them in
training, or (n_tracks, n_targets). Statistics for scaling come from the
training rows given to ``fit``. Grids are data, strongest regularisation first,
so that a tie on validation goes to the simpler model. Arithmetic is float64.

With more features than tracks, an L2-penalised linear model lives in the span
of the training rows (the representer theorem), so it is fitted on at most
n_tracks coordinates found from the Gram matrix: exact, and cheap for concat.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from tune_cache.aggregation.concat import scale_of
from tune_cache.errors import TaskError, UsageError

__all__ = ["KNN", "PROBES", "Logistic", "Probe", "Ridge", "make_probe"]

Array = np.ndarray[Any, np.dtype[Any]]
Params = Mapping[str, float | int | str]

FEATURES_AT_ONCE = 4096
SMALL_MATRIX = 4096  # below it more BLAS threads cost more than they bring


class Probe(Protocol):
    """A model with a grid.

    Attributes
    ----------
    kinds
        Of tasks that it can learn.
    grid
        Settings fitted; ``fit`` may drop those that the data cannot support.
    warnings
        What a reader of the score must know, after ``fit``.
    """

    kinds: ClassVar[tuple[str, ...]]
    grid: tuple[Params, ...]
    warnings: tuple[str, ...]

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self: ...

    def predict_all(self, X: Array) -> list[Array]:
        """Predict with every setting of the grid, in its order."""

    def predict(self, X: Array, choice: int) -> Array:
        """Predict with one setting."""


@contextmanager
def few_threads(size: int) -> Iterator[None]:
    """One BLAS thread while a small problem is solved: several fight each other."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1 if size <= SMALL_MATRIX else None, user_api="blas"):
        yield


class _Coordinates:
    """Scaled, centred, and where rows are fewer than columns: in the span of the rows.

    ``axes`` rotates to orthogonal columns, whose squared lengths are ``power``.
    """

    def __init__(self, X: Array, *, standardise: bool, axes: bool) -> None:
        n, p = X.shape
        self.mean = X.mean(axis=0, dtype=np.float64)
        self.scale = scale_of(X, self.mean) if standardise else np.ones(p)
        self.rows: Array | None = None
        self.rotation: Array | None = None
        if n < p:
            self.rows = X
            power, vectors = np.linalg.eigh(self._products(X, X))
            rounding = n * np.finfo(np.float64).eps * power[-1]
            keep = np.flatnonzero(power > rounding) if power[-1] > 0 else [n - 1]
            self.power, vectors = np.maximum(power[keep], 0.0), vectors[:, keep]
            lengths = np.sqrt(self.power)
            self.rotation = vectors / np.where(lengths > 0, lengths, 1.0)
            self.train = vectors * lengths
        else:
            self.train = (X - self.mean) / self.scale
            if axes:
                power, self.rotation = np.linalg.eigh(self.train.T @ self.train)
                self.power = np.maximum(power, 0.0)
                self.train = self.train @ self.rotation

    def __call__(self, X: Array) -> Array:
        if self.rows is not None:
            located = self._products(X, self.rows)
        else:
            located = (X - self.mean) / self.scale
        return located if self.rotation is None else located @ self.rotation

    def _products(self, left: Array, right: Array) -> Array:
        """Inner products of scaled rows in float64, in blocks of features."""
        out = np.zeros((len(left), len(right)))
        for start in range(0, left.shape[1], FEATURES_AT_ONCE):
            some = slice(start, start + FEATURES_AT_ONCE)
            a, b = ((side[:, some] - self.mean[some]) / self.scale[some] for side in (left, right))
            out += a @ b.T
        return out


class Ridge:
    """Least squares with an L2 penalty; one factorisation for all strengths and targets.

    As scikit-learn's ``Ridge`` after ``StandardScaler``: the intercept is free,
    ``alpha`` is not divided by the number of tracks.
    """

    kinds: ClassVar[tuple[str, ...]] = ("regression",)
    grid: tuple[Params, ...] = tuple({"alpha": 10.0**power} for power in range(6, -4, -1))
    warnings: tuple[str, ...] = ()

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        with few_threads(min(X.shape)):
            self._locate = locate = _Coordinates(X, standardise=standardise, axes=True)
            self._offset = y.mean(axis=0)
            along = locate.train.T @ (y - self._offset)
        self._coefficients = [
            along / (locate.power[:, None] + float(params["alpha"])) for params in self.grid
        ]
        return self

    def predict_all(self, X: Array) -> list[Array]:
        with few_threads(len(X)):
            located = self._locate(X)
            return [located @ some + self._offset for some in self._coefficients]

    def predict(self, X: Array, choice: int) -> Array:
        with few_threads(len(X)):
            return np.asarray(self._locate(X) @ self._coefficients[choice] + self._offset)


class Logistic:
    """Multinomial logistic regression with an L2 penalty, strengths warm-started in turn.

    As scikit-learn's ``LogisticRegression`` (L-BFGS) after ``StandardScaler``.
    """

    kinds: ClassVar[tuple[str, ...]] = ("multiclass",)
    grid: tuple[Params, ...] = tuple({"C": 10.0**power} for power in range(-4, 2))
    warnings: tuple[str, ...] = ()

    def __init__(self, max_iter: int = 2000) -> None:
        self.max_iter = max_iter

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        with few_threads(min(X.shape)), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self._locate = _Coordinates(X, standardise=standardise, axes=False)
            model = LogisticRegression(warm_start=True, max_iter=self.max_iter)
            self._planes = []
            for params in self.grid:
                model.set_params(**params).fit(self._locate.train, y)
                self._planes.append((model.coef_.T.copy(), model.intercept_.copy()))
        if n_stopped := sum(issubclass(item.category, ConvergenceWarning) for item in caught):
            self.warnings = (
                f"logistic regression stopped after {self.max_iter} steps at"
                f" {n_stopped} of {len(self.grid)} strengths",
            )
        return self

    def predict_all(self, X: Array) -> list[Array]:
        with few_threads(len(X)):
            located = self._locate(X)
            return [self._side(located, choice) for choice in range(len(self.grid))]

    def predict(self, X: Array, choice: int) -> Array:
        with few_threads(len(X)):
            return self._side(self._locate(X), choice)

    def _side(self, located: Array, choice: int) -> Array:
        """Class with the largest margin; two classes share one plane."""
        normals, offsets = self._planes[choice]
        margins = located @ normals + offsets
        if margins.shape[1] == 1:
            return np.asarray(margins[:, 0] > 0, dtype=np.int64)
        return np.asarray(margins.argmax(axis=1))


class KNN:
    """Vote, or mean, of the k nearest training tracks; neighbours are found once for all k.

    Ties go to the first class. Distances see what linear models do not, such
    as the norm that grows with a concatenated track's length.
    """

    kinds: ClassVar[tuple[str, ...]] = ("multiclass", "regression")
    grid: tuple[Params, ...] = tuple(
        {"k": k, "metric": metric}
        for k in (31, 15, 9, 5, 3, 1)
        for metric in ("cosine", "euclidean")
    )
    warnings: tuple[str, ...] = ()

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        from sklearn.neighbors import NearestNeighbors

        self.grid = tuple(params for params in self.grid if int(params["k"]) <= len(X))
        self._mean = X.mean(axis=0, dtype=np.float64) if standardise else np.zeros(X.shape[1])
        self._scale = scale_of(X, self._mean) if standardise else np.ones(X.shape[1])
        self._y = y
        scaled = (X - self._mean) / self._scale
        self._index = {
            metric: NearestNeighbors(metric=metric, algorithm="brute").fit(scaled)
            for metric in dict.fromkeys(str(params["metric"]) for params in self.grid)
        }
        return self

    def predict_all(self, X: Array) -> list[Array]:
        nearest = {metric: self._nearest(X, metric) for metric in self._index}
        return [self._vote(nearest[str(params["metric"])], params) for params in self.grid]

    def predict(self, X: Array, choice: int) -> Array:
        params = self.grid[choice]
        return self._vote(self._nearest(X, str(params["metric"])), params)

    def _nearest(self, X: Array, metric: str) -> Array:
        k = max(int(params["k"]) for params in self.grid)
        scaled = (X - self._mean) / self._scale
        found: Array = self._index[metric].kneighbors(scaled, k, return_distance=False)
        return found

    def _vote(self, nearest: Array, params: Params) -> Array:
        votes = self._y[nearest[:, : int(params["k"])]]
        if self._y.ndim == 2:
            return np.asarray(votes.mean(axis=1))
        return np.asarray(np.eye(int(self._y.max()) + 1)[votes].sum(axis=1).argmax(axis=1))


PROBES: dict[str, type[Probe]] = {"logistic": Logistic, "ridge": Ridge, "knn": KNN}
AUTO = {"multiclass": "logistic", "regression": "ridge"}


def make_probe(name: str, kind: str) -> tuple[str, Probe]:
    """Make an unfitted probe for a kind of task; ``auto`` chooses by the kind.

    Returns
    -------
    the probe's own name, and the probe

    Raises
    ------
    UsageError
        If there is no such probe.
    TaskError
        If it cannot learn such a task.
    """
    name = AUTO.get(kind, name) if name == "auto" else name
    if name not in PROBES:
        raise UsageError(f"probe is {name!r}, expected auto or one of {', '.join(PROBES)}")
    if kind not in PROBES[name].kinds:
        able = [other for other, probe in PROBES.items() if kind in probe.kinds]
        raise TaskError(
            f"probe {name!r} cannot learn a {kind} task",
            hint=f"use --probe {able[0]}" if able else None,
        )
    return name, PROBES[name]()
