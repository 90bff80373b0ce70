"""Segments side by side: the one aggregation here that keeps their order.

Conventions
-----------
Columns are segment-major: all of segment 0, all of segment 1, …; shorter
tracks end in zeros. Order of the steps: statistics per dimension over the
*observed* training segments, standardise, pad. Nothing is rescaled afterwards:
a scaler over padded columns would divide late positions by a spread made of
padding and turn track length into a large feature. As zero is the mean of
standardised rows, padding shifts no column's expectation, and no linear
function of them predicts length. It does remove spread: norms grow with
length, so k-nearest neighbours see it, and a classifier's threshold can tell
tracks that sit at zero from tracks that scatter around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tune_cache.aggregation.base import Array, TrackAggregation
from tune_cache.errors import TaskError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Concat", "scale_of"]

MAX_BYTES = 2**31


class Concat(TrackAggregation):
    """Standardise segments, put them side by side, pad with zeros.

    Costs n_tracks · max_segments · dim · itemsize bytes.

    Parameters
    ----------
    max_segments
        Longer tracks are cut to their first ``max_segments``; None takes the
        longest training track. A cap that no track reaches is lowered to it.
    max_bytes
        Refuse to make an array larger than this.

    Attributes
    ----------
    mean_, scale_ : of shape (dim,)
        Of the training segments.
    max_segments_
        In use.

    Examples
    --------
    >>> tracks = [np.array([[1.0], [3.0]]), np.array([[1.0]])]
    >>> Concat().fit([np.array([[1.0], [3.0]])]).transform(tracks).tolist()
    [[-1.0, 1.0], [-1.0, 0.0]]
    """

    standardised_output: ClassVar[bool] = True

    def __init__(self, max_segments: int | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.max_segments = max_segments
        self.max_bytes = max_bytes

    def n_truncated(self, lengths: Array) -> int:
        return int(np.count_nonzero(np.asarray(lengths) > self.max_segments_))

    def share_padding(self, lengths: Array) -> float:
        return 1.0 - float(np.minimum(lengths, self.max_segments_).mean()) / self.max_segments_

    def _learn(self, values: Array, offsets: Array) -> None:
        if self.max_segments is not None and self.max_segments < 1:
            raise UsageError(f"max_segments is {self.max_segments!r}, expected 1 or more")
        longest = int(np.diff(offsets).max())
        self.max_segments_ = min(longest, self.max_segments or longest)
        self._refuse_to_swap(len(offsets) - 1, np.result_type(values.dtype, np.float32))
        self.mean_ = values.mean(axis=0, dtype=np.float64)
        self.scale_ = scale_of(values, self.mean_)

    def _aggregate(self, values: Array, offsets: Array, dtype: np.dtype[Any]) -> Array:
        n_tracks, lengths = len(offsets) - 1, np.diff(offsets)
        self._refuse_to_swap(n_tracks, dtype)
        mean, scale = self.mean_.astype(dtype), self.scale_.astype(dtype)
        out = np.zeros((n_tracks, self.max_segments_, values.shape[1]), dtype=dtype)
        for position in range(self.max_segments_):
            there = np.flatnonzero(lengths > position)
            out[there, position] = (values[offsets[there] + position] - mean) / scale
        return out.reshape(n_tracks, -1)

    def _parts(self) -> Sequence[str]:
        return [f"segment{position}" for position in range(self.max_segments_)]

    def _refuse_to_swap(self, n_tracks: int, dtype: np.dtype[Any]) -> None:
        """Raise before an array is made that is larger than ``max_bytes``."""
        row_bytes = n_tracks * self.n_features_in_ * dtype.itemsize
        needed = row_bytes * self.max_segments_
        if needed > self.max_bytes:
            fits = self.max_bytes // row_bytes
            raise TaskError(
                f"concat needs {needed:,} bytes ({n_tracks:,} tracks × {self.max_segments_:,}"
                f" segments × {self.n_features_in_:,} dimensions × {dtype.itemsize} bytes),"
                f" expected at most {self.max_bytes:,}",
                hint=(f"max_segments={fits} would fit; or " if fits else "")
                + "use longer segments, raise max_bytes, or aggregate by mean",
            )


def scale_of(values: Array, mean: Array) -> Array:
    """Spread per column to divide by, 1 where a column is constant up to rounding.

    Computed in float64 in blocks of rows. A spread below 1e-6 of the mean is
    what float32 sums of equal numbers leave behind; dividing by it would blow
    rounding up to a feature.
    """
    squares = np.zeros(values.shape[1])
    for start in range(0, len(values), 4096):
        squares += np.square(values[start : start + 4096] - mean).sum(axis=0)
    scale = np.sqrt(squares / len(values))
    return np.where(scale > 1e-6 * np.abs(mean), scale, 1.0)
