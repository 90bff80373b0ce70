"""What every probe is, and what several share: the contract, scaling, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from tune_cache.aggregation.concat import scale_of

__all__ = ["Array", "HeldOut", "Params", "Probe", "Scaling", "few_threads"]

Array = np.ndarray[Any, np.dtype[Any]]
Params = Mapping[str, Any]

SMALL_MATRIX = 4096  # below it more BLAS threads cost more than they bring


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Tracks that a training never learns from, but is judged by while it runs.

    They are those that layer and strength are chosen on, and never of test.

    Parameters
    ----------
    X, y
        As ``fit`` and ``predict`` take them.
    score
        Of predictions for ``X``; larger is better, NaN undefined.
    """

    X: Any
    y: Array
    score: Callable[[Array], float]


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


@cache
def _libraries() -> Any:
    """BLAS libraries of this process; looking for them takes 3 ms, and all are loaded by now."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def few_threads(size: int) -> Iterator[None]:
    """One BLAS thread while a small problem is solved: several fight each other."""
    with _libraries().limit(limits=1 if size <= SMALL_MATRIX else None, user_api="blas"):
        yield


class Scaling:
    """Centre and scale columns by their training rows, or leave them as they are."""

    def __init__(self, X: Array, *, standardise: bool) -> None:
        self.mean = X.mean(axis=0, dtype=np.float64) if standardise else np.zeros(X.shape[1])
        self.scale = scale_of(X, self.mean) if standardise else np.ones(X.shape[1])

    def __call__(self, X: Array) -> Array:
        return np.asarray((X - self.mean) / self.scale)
