"""What every aggregation shares: checking ragged input, the scikit-learn contract.

Conventions
-----------
``X`` is a :class:`~tune_cache.cache.ragged.Ragged`, a sequence of
(n_segments, dim) arrays, one a track, or a 3-D array. A plain 2-D array is a
set of tracks with one segment each, as scikit-learn means it, *not* one track.
Only a ``Ragged`` knows how long its segments are; elsewhere all count alike.
Output is (n_tracks, n_features): float64 if the input is, else float32, and
sums are accumulated in that type, never in float16.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from tune_cache.cache.pieces import Pieced, in_memory
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, first_few

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Array", "TrackAggregation"]

Array = np.ndarray[Any, np.dtype[Any]]


class TrackAggregation(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """Turn a track's segments into one vector; subclasses say how.

    Attributes
    ----------
    standardised_output
        The output is already on one scale and must not be rescaled: a probe
        standardises after an aggregation only where this is False.
    sees_length
        The expected output depends on the number of segments even if the
        segments themselves do not, so a linear probe can read track length.
    goes_by_track
        The output of a track depends on nothing but the track, and ``fit`` learns
        nothing: what is read in pieces is aggregated in pieces.
    """

    standardised_output: ClassVar[bool] = False
    goes_by_track: ClassVar[bool] = False

    @property
    def sees_length(self) -> bool:
        return False

    def n_truncated(self, lengths: Array) -> int:
        """Count the tracks, by their numbers of segments, that lose some here."""
        return 0

    def share_padding(self, lengths: Array) -> float:
        """Share of the output that is padding, for tracks of these numbers of segments."""
        return 0.0

    def flags(self, lengths: Array) -> Sequence[str]:
        """What else these numbers of segments mean for the reading of a score."""
        return ()

    def check_options(self) -> None:
        """Refuse constructor arguments that have no meaning; ``fit`` does, too."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what there is to learn from training tracks; ``y`` is ignored."""
        self.check_options()
        if self.goes_by_track and isinstance(X, Pieced):
            X = in_memory(X[:1])
        self._learn(self._segments(X, reset=True))
        return self

    def transform(self, X: Any) -> Array:
        """Aggregate each track, in order, to shape (n_tracks, n_features)."""
        check_is_fitted(self)
        if self.goes_by_track and isinstance(X, Pieced):
            return np.concatenate([self.transform(piece) for piece in X.pieces()])
        tracks = self._segments(X, reset=False)
        return self._aggregate(tracks, np.result_type(tracks.values.dtype, np.float32))

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Name the output columns after the statistic, or position, and the input's."""
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        parts = self._parts()
        return np.asarray([f"{part}_{name}" for part in parts for name in names], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _learn(self, tracks: Ragged) -> None:
        """Fit to segments already checked; nothing by default."""

    @abstractmethod
    def _aggregate(self, tracks: Ragged, dtype: np.dtype[Any]) -> Array:
        """Compute the output from segments already checked."""

    @abstractmethod
    def _parts(self) -> Sequence[str]:
        """Name the blocks of ``dim`` columns that the output is made of."""

    def _segments(self, X: Any, *, reset: bool) -> Ragged:
        """Bring to checked rows, refusing what has no meaning."""
        rows, tracks = _flatten(X)
        floats = (np.float64, np.float32, np.float16)  # the first is for what is none of them
        try:
            values: Array = validate_data(self, rows, reset=reset, dtype=floats)
        except ValueError as error:
            raise TaskError(str(error)) from error
        found = Ragged(
            values=values,
            offsets=np.arange(len(values) + 1) if tracks is None else tracks.offsets,
            n_samples=np.ones(len(values)) if tracks is None else tracks.n_samples,
        )
        empty = np.flatnonzero(found.lengths == 0)
        if len(empty):
            raise TaskError(
                f"{len(empty)} of {len(found)} tracks have no segments:"
                f" positions {first_few(empty.tolist())}",
                hint="leave out tracks that failed; they have no vectors",
            )
        return found


def _flatten(X: Any) -> tuple[Any, Ragged | None]:
    """Rows of all tracks, and the tracks; None for what scikit-learn calls a matrix."""
    if isinstance(X, Ragged):
        if X.values.ndim != 2:
            raise TaskError(
                f"tracks have values of shape {X.values.shape}, expected (n_segments, dim)",
                hint="pick a layer first: tracks.layer(position)",
            )
        return X.values, X
    if isinstance(X, np.ndarray) and X.ndim == 3:
        n_tracks, n_segments, dim = X.shape
        cube = Ragged(
            values=X.reshape(-1, dim),
            offsets=np.arange(n_tracks + 1) * n_segments,
            n_samples=np.ones(n_tracks * n_segments),
        )
        return cube.values, cube
    if isinstance(X, list | tuple | np.ndarray) and len(X) and np.ndim(X[0]) == 2:
        widths = {np.shape(track)[1] if np.ndim(track) == 2 else None for track in X}
        if len(widths) > 1:
            found = first_few(sorted(widths, key=str))
            raise TaskError(f"tracks differ in the width of their vectors: {found}")
        tracks = Ragged.from_tracks(list(X))
        return tracks.values, tracks
    return X, None
