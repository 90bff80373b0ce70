"""Linear classifiers with an L2 penalty, strengths warm-started in turn.

Conventions
-----------
The objective is mean loss + ‖W‖² / (2 C n), the intercept free: scikit-learn's,
divided by C n. It is minimised by L-BFGS over coordinates (see
:mod:`tune_cache.probes.models.coordinates`) that are stretched so that the
Hessian at the last strength's solution is near the identity: directions of
much and of little variance then converge together. Tags, and classes of the
SVM, are problems of their own that are solved side by side.

Liu and Nocedal, "On the limited memory BFGS method for large scale
optimization", Mathematical Programming 1989.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import numpy as np

from tune_cache.probes.models.base import Array, Params, few_threads
from tune_cache.probes.models.coordinates import Coordinates

__all__ = ["LinearSVM", "Logistic"]

TOLERANCE = 1e-4  # of the stretched gradient: the loss is then within 1e-6
FLATTEST = 1e-3  # least curvature assumed of a loss


class _Linear:
    """A classifier by its loss, as a function of margins (n_tracks, n_planes)."""

    kinds: ClassVar[tuple[str, ...]] = ("multiclass", "multilabel")
    grid: tuple[Params, ...] = ()
    warnings: tuple[str, ...] = ()
    name: ClassVar[str]

    def __init__(self, max_iter: int = 2000) -> None:
        self.max_iter = max_iter

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        self._classes = np.unique(y) if y.ndim == 1 else None
        is_one = y[:, None] == self._classes if self._classes is not None else y > 0
        with few_threads(min(X.shape)):
            self._locate = Coordinates(X, standardise=standardise)
            self._solve(self._locate.train, self._locate.power, is_one.astype(np.float64))
        return self

    def _solve(self, train: Array, power: Array, is_one: Array) -> None:
        """Find a plane a column of ``is_one`` at every strength."""
        from scipy.optimize import minimize

        n, shape = len(train), (train.shape[1], self._n_planes(is_one))
        weights, offsets = np.zeros(shape), self._start(is_one)
        self._planes: list[tuple[Array, Array]] = []
        n_stopped = 0
        for params in self.grid:
            penalty = 1 / (float(params["C"]) * n)
            bend = self._curvature(train @ weights + offsets, is_one)
            stretch = 1 / np.sqrt(bend * (power[:, None] / n) + penalty)
            lift = 1 / np.sqrt(bend)

            def objective(
                point: Array,
                stretch: Array = stretch,
                lift: Array = lift,
                penalty: float = penalty,
            ) -> tuple[float, Array]:
                plane = point[shape[1] :].reshape(shape) * stretch
                value, slope = self._loss(train @ plane + point[: shape[1]] * lift, is_one)
                turn = (train.T @ slope / n + penalty * plane) * stretch
                total = value / n + penalty / 2 * float(np.square(plane).sum())
                return total, np.concatenate([slope.sum(axis=0) / n * lift, turn.ravel()])

            found = minimize(
                objective,
                np.concatenate([offsets / lift, (weights / stretch).ravel()]),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": self.max_iter, "gtol": TOLERANCE, "ftol": 1e-14, "maxls": 50},
            )
            n_stopped += found.nit >= self.max_iter
            offsets = found.x[: shape[1]] * lift
            weights = found.x[shape[1] :].reshape(shape) * stretch
            self._planes.append((weights, offsets))
        self.warnings = ()
        if n_stopped:
            self.warnings = (
                f"{self.name} stopped after {self.max_iter} steps at"
                f" {n_stopped} of {len(self.grid)} strengths",
            )

    def predict_all(self, X: Array) -> list[Array]:
        with few_threads(len(X)):
            located = self._locate(X)
            return [self._side(located, choice) for choice in range(len(self.grid))]

    def predict(self, X: Array, choice: int) -> Array:
        with few_threads(len(X)):
            return self._side(self._locate(X), choice)

    def _side(self, located: Array, choice: int) -> Array:
        """Margins of tags; of classes the one with the largest, where two share one plane."""
        normals, offsets = self._planes[choice]
        margins = np.asarray(located @ normals + offsets)
        if self._classes is None:
            return margins
        is_two = margins.shape[1] == 1 and len(self._classes) == 2
        numbers = (margins[:, 0] > 0) * 1 if is_two else margins.argmax(axis=1)
        return np.asarray(self._classes[numbers])

    def _n_planes(self, is_one: Array) -> int:
        return int(is_one.shape[1])

    @abstractmethod
    def _start(self, is_one: Array) -> Array:
        """Offsets to begin with."""

    @abstractmethod
    def _curvature(self, margins: Array, is_one: Array) -> Array:
        """Mean second derivative of the loss, by plane."""

    @abstractmethod
    def _loss(self, margins: Array, is_one: Array) -> tuple[float, Array]:
        """Sum of the loss over tracks and planes, and its derivative by the margins."""


class Logistic(_Linear):
    """Logistic regression: multinomial over classes, binary for each tag.

    As scikit-learn's ``LogisticRegression`` after ``StandardScaler``; two classes
    share one plane.
    """

    grid: tuple[Params, ...] = tuple({"C": 10.0**power} for power in range(-4, 2))
    name: ClassVar[str] = "logistic regression"

    @property
    def _is_softmax(self) -> bool:
        return self._classes is not None and len(self._classes) > 2

    def _n_planes(self, is_one: Array) -> int:
        is_two = self._classes is not None and len(self._classes) == 2
        return 1 if is_two else int(is_one.shape[1])

    def _start(self, is_one: Array) -> Array:
        share = np.clip(is_one.mean(axis=0), 0.5 / len(is_one), 1 - 0.5 / len(is_one))
        odds = np.log(share) if self._is_softmax else np.log(share / (1 - share))
        return np.asarray(
            (odds - odds.mean()) if self._is_softmax else odds[-self._n_planes(is_one) :]
        )

    def _curvature(self, margins: Array, is_one: Array) -> Array:
        from scipy.special import expit, softmax

        share = softmax(margins, axis=1) if self._is_softmax else expit(margins)
        bend = np.maximum((share * (1 - share)).mean(axis=0), FLATTEST)
        return np.full_like(bend, bend.mean()) if self._is_softmax else bend

    def _loss(self, margins: Array, is_one: Array) -> tuple[float, Array]:
        if self._is_softmax:
            margins = margins - margins.max(axis=1, keepdims=True)
            odds = np.exp(margins)
            total = odds.sum(axis=1, keepdims=True)
            value = np.log(total).sum() - (margins * is_one).sum()
            return float(value), odds / total - is_one
        sign = 1 - 2 * is_one[:, -margins.shape[1] :]
        away = sign * margins
        size = np.exp(-np.abs(away))
        value = (np.maximum(away, 0) + np.log1p(size)).sum()
        share = np.where(away >= 0, 1.0, size) / (1 + size)
        return float(value), sign * share


class LinearSVM(_Linear):
    """Support vector machine with squared hinge loss, one class or tag against the rest.

    As scikit-learn's ``LinearSVC`` after ``StandardScaler``, but that the
    intercept is not penalised.
    """

    grid: tuple[Params, ...] = tuple({"C": 10.0**power} for power in range(-5, 1))
    name: ClassVar[str] = "the linear SVM"

    def _start(self, is_one: Array) -> Array:
        return np.asarray(2 * is_one.mean(axis=0) - 1)

    def _curvature(self, margins: Array, is_one: Array) -> Array:
        inside = (2 * is_one - 1) * margins < 1
        return np.asarray(np.maximum(2 * inside.mean(axis=0), FLATTEST))

    def _loss(self, margins: Array, is_one: Array) -> tuple[float, Array]:
        sign = 2 * is_one - 1
        short = np.maximum(1 - sign * margins, 0)
        return float(np.square(short).sum()), -2 * sign * short
