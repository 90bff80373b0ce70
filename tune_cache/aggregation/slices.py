"""Every segment by itself, for a probe that learns from slices and averages what it predicts.

Conventions
-----------
There is no vector a track, so it stands in none of the registry's lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from tune_cache.aggregation.base import Array, TrackAggregation
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError

__all__ = ["Slices"]


class Slices(TrackAggregation):
    """Hand on every segment as it is: a probe learns each, and averages what it predicts."""

    def fit(self, X: Any, y: Any = None) -> Self:
        tracks = self.transform(X)
        self.shape_ = tracks.values.shape[1:]
        return self

    def transform(self, X: Any) -> Any:
        """Return the tracks themselves, a :class:`~tune_cache.cache.ragged.Ragged`."""
        if not isinstance(X, Ragged) or (X.lengths == 0).any():
            raise TaskError(
                "slices are of tracks with at least one segment each, of one segment length",
                hint="give one --seg, and leave out tracks that failed",
            )
        return X

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        return np.asarray([f"x{number}" for number in range(int(np.prod(self.shape_)))], object)

    def _aggregate(self, tracks: Ragged, dtype: np.dtype[Any]) -> Array:
        raise NotImplementedError("slices are handed on")

    def _parts(self) -> Sequence[str]:
        return ("slice",)
