"""Order-free statistics over a track's segments: ``mean``, ``max``, ``mean+std``.

Conventions
-----------
Every segment weighs the same, a shorter last one too. Names joined by ``+``
are computed side by side. With one segment mean ≡ max and std is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.base import Array, TrackAggregation
from tune_cache.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["STATISTICS", "Pooling"]


def _mean(values: Array, offsets: Array, dtype: np.dtype[Any]) -> Array:
    sums = np.add.reduceat(values, offsets[:-1], axis=0, dtype=dtype)
    return np.divide(sums, np.diff(offsets)[:, None], dtype=dtype)


def _max(values: Array, offsets: Array, dtype: np.dtype[Any]) -> Array:
    return np.maximum.reduceat(values, offsets[:-1], axis=0).astype(dtype)


def _std(values: Array, offsets: Array, dtype: np.dtype[Any]) -> Array:
    """Of the population (divided by n); two passes, so a large mean costs no digits.

    Equal segments give exactly 0: what rounding leaves would tell how many there were.
    """
    mean = _mean(values, offsets, dtype)
    away = values - np.repeat(mean, np.diff(offsets), axis=0)
    std = np.sqrt(_mean(np.square(away, out=away), offsets, dtype))
    std[std < 8 * np.finfo(dtype).eps * np.abs(mean)] = 0.0
    return std


STATISTICS: dict[str, Callable[[Array, Array, np.dtype[Any]], Array]] = {
    "mean": _mean,
    "max": _max,
    "std": _std,
}


class Pooling(TrackAggregation):
    """Pool segments by one statistic, or several side by side.

    ``max`` grows and ``std`` shrinks towards 0 as segments get fewer, so both
    tell a probe how long a track is (``sees_length``); ``mean`` does not.

    Parameters
    ----------
    statistics
        Names from :data:`STATISTICS`, joined by ``+``.

    Examples
    --------
    >>> tracks = [np.array([[0.0, 2.0], [4.0, 2.0]]), np.array([[1.0, 3.0]])]
    >>> Pooling("mean+std").fit_transform(tracks).tolist()
    [[2.0, 2.0, 2.0, 0.0], [1.0, 3.0, 0.0, 0.0]]
    """

    def __init__(self, statistics: str = "mean") -> None:
        self.statistics = statistics

    @property
    def sees_length(self) -> bool:
        return self._parts() != ["mean"]

    def _parts(self) -> Sequence[str]:
        parts = str(self.statistics).split("+")
        if len(set(parts)) < len(parts) or not set(parts) <= STATISTICS.keys():
            raise UsageError(
                f"statistics are {self.statistics!r}, expected different names joined by '+'",
                hint="known statistics: " + ", ".join(STATISTICS),
            )
        return parts

    def _learn(self, values: Array, offsets: Array) -> None:
        self._parts()  # a wrong name is an error of fit, not of transform

    def _aggregate(self, values: Array, offsets: Array, dtype: np.dtype[Any]) -> Array:
        return np.hstack([STATISTICS[part](values, offsets, dtype) for part in self._parts()])
