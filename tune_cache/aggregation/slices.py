"""What keeps an axis that others sum over: slices of a track, layers of the encoder.

Conventions
-----------
Both belong with ``--probe mlp``, which learns from single slices, or weighs layers;
neither has a vector a track, so neither stands in the registry's lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from tune_cache.aggregation.base import Array, TrackAggregation
from tune_cache.aggregation.scales import Scales
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError

__all__ = ["EachLayer", "Slices", "layer_of"]


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


class EachLayer(TrackAggregation):
    """One aggregation a layer, of vectors (n_segments, n_layers, dim); layers stay apart.

    Parameters
    ----------
    make
        Of one layer's aggregation, unfitted.
    """

    def __init__(self, make: Callable[[], TrackAggregation]) -> None:
        self.make = make

    def fit(self, X: Any, y: Any = None) -> Self:
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        """Aggregate to shape (n_tracks, n_layers, n_features)."""
        self.layers_ = [self.make() for _ in range(_values(X).shape[1])]
        return np.stack(
            [one.fit_transform(layer_of(X, place)) for place, one in enumerate(self.layers_)],
            axis=1,
        )

    def transform(self, X: Any) -> Array:
        return np.stack(
            [one.transform(layer_of(X, place)) for place, one in enumerate(self.layers_)], axis=1
        )

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        return np.concatenate([one.get_feature_names_out() for one in self.layers_])

    @property
    def sees_length(self) -> bool:
        return self.make().sees_length

    def n_truncated(self, lengths: Array) -> int:
        return self.layers_[0].n_truncated(lengths)

    def share_padding(self, lengths: Array) -> float:
        return self.layers_[0].share_padding(lengths)

    def _aggregate(self, tracks: Ragged, dtype: np.dtype[Any]) -> Array:
        raise NotImplementedError("each layer has its own")

    def _parts(self) -> Sequence[str]:
        return ("layer",)


def layer_of(tracks: Ragged | Scales, place: int) -> Ragged | Scales:
    """One layer, by its place, of vectors with a layer axis."""
    if isinstance(tracks, Scales):
        return Scales(tuple(part.layer(place) for part in tracks.parts))
    return tracks.layer(place)


def _values(tracks: Ragged | Scales) -> Array:
    return (tracks.parts[0] if isinstance(tracks, Scales) else tracks).values
