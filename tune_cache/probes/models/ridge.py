"""Least squares with an L2 penalty: one factorisation for all strengths and targets."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from tune_cache.probes.models.base import Array, Params, few_threads
from tune_cache.probes.models.coordinates import Coordinates

__all__ = ["Ridge"]


class Ridge:
    """As scikit-learn's ``Ridge``, or ``RidgeClassifier``, after ``StandardScaler``.

    The intercept is free; ``alpha`` is not divided by the number of tracks.
    Classes are fitted as targets 1 and -1, one a class; tags as 0 and 1.
    """

    kinds: ClassVar[tuple[str, ...]] = ("regression", "multiclass", "multilabel")
    grid: tuple[Params, ...] = tuple({"alpha": 10.0**power} for power in range(6, -4, -1))
    warnings: tuple[str, ...] = ()

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        self._classes: Array | None = None
        if y.ndim == 1:
            self._classes = np.unique(y)
            y = np.where(y[:, None] == self._classes, 1.0, -1.0)
        with few_threads(min(X.shape)):
            self._locate = locate = Coordinates(X, standardise=standardise)
            self._offset = y.mean(axis=0)
            along = locate.train.T @ (y - self._offset)
        self._coefficients = [
            along / (locate.power[:, None] + float(params["alpha"])) for params in self.grid
        ]
        return self

    def predict_all(self, X: Array) -> list[Array]:
        with few_threads(len(X)):
            located = self._locate(X)
            return [self._side(located, choice) for choice in range(len(self.grid))]

    def predict(self, X: Array, choice: int) -> Array:
        with few_threads(len(X)):
            return self._side(self._locate(X), choice)

    def _side(self, located: Array, choice: int) -> Array:
        found = np.asarray(located @ self._coefficients[choice] + self._offset)
        return found if self._classes is None else self._classes[found.argmax(axis=1)]
