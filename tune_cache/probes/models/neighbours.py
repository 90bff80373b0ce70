"""Probes by distance: nearest tracks, nearest centroid of a class."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from tune_cache.probes.models.base import Array, Params, Scaling, few_threads

__all__ = ["KNN", "NearestCentroid"]


class KNN:
    """Vote, or mean, of the k nearest training tracks; neighbours are found once for all k.

    Ties go to the first class. A tag's score is its share among the neighbours.
    """

    kinds: ClassVar[tuple[str, ...]] = ("multiclass", "multilabel", "regression")
    grid: tuple[Params, ...] = tuple(
        {"k": k, "metric": metric}
        for k in (31, 15, 9, 5, 3, 1)
        for metric in ("cosine", "euclidean")
    )
    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._neighbours = NearestNeighbors

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        self.grid = tuple(params for params in self.grid if int(params["k"]) <= len(X))
        self._scaled, self._y = Scaling(X, standardise=standardise), y
        scaled = self._scaled(X)
        self._index = {
            metric: self._neighbours(metric=metric, algorithm="brute").fit(scaled)
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
        with few_threads(len(X)):
            found: Array = self._index[metric].kneighbors(self._scaled(X), k, return_distance=False)
        return found

    def _vote(self, nearest: Array, params: Params) -> Array:
        votes = self._y[nearest[:, : int(params["k"])]]
        if self._y.ndim == 2:
            return np.asarray(votes.mean(axis=1))
        return np.asarray(np.eye(int(self._y.max()) + 1)[votes].sum(axis=1).argmax(axis=1))


class NearestCentroid:
    """The class whose mean is nearest; for tags, how much nearer its mean is than the rest's.

    Nothing is regularised and nothing can be overfitted but the means: the probe
    for few examples a class.
    """

    kinds: ClassVar[tuple[str, ...]] = ("multiclass", "multilabel")
    grid: tuple[Params, ...] = ({"metric": "cosine"}, {"metric": "euclidean"})
    warnings: tuple[str, ...] = ()

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        self._scaled = Scaling(X, standardise=standardise)
        scaled = self._scaled(X)
        self._classes = np.unique(y) if y.ndim == 1 else None
        is_one = y[:, None] == self._classes if self._classes is not None else y > 0
        self._ones = _means(scaled, is_one)
        self._rest = _means(scaled, ~is_one)
        return self

    def predict_all(self, X: Array) -> list[Array]:
        return [self.predict(X, choice) for choice in range(len(self.grid))]

    def predict(self, X: Array, choice: int) -> Array:
        scaled, metric = self._scaled(X), str(self.grid[choice]["metric"])
        with few_threads(len(X)):
            near = _nearness(scaled, self._ones, metric)
            if self._classes is not None:
                return np.asarray(self._classes[near.argmax(axis=1)])
            return np.asarray(near - _nearness(scaled, self._rest, metric))


def _means(rows: Array, chosen: Array) -> Array:
    """Mean of the chosen rows, a column of ``chosen`` each; zero where none is chosen."""
    return np.asarray(chosen.T @ rows / np.maximum(chosen.sum(axis=0), 1)[:, None])


def _nearness(rows: Array, centres: Array, metric: str) -> Array:
    """Cosine, or minus the squared distance but for what all centres share."""
    product = rows @ centres.T
    if metric == "euclidean":
        return np.asarray(2 * product - np.square(centres).sum(axis=1))
    lengths = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(centres, axis=1)
    return np.asarray(np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0))
