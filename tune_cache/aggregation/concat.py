"""Segments side by side: the one aggregation here that keeps their order.

Conventions
-----------
Columns are segment-major: all of segment 0, all of segment 1, …. Rows are
standardised by the statistics of the *observed* training segments and never
rescaled: a scaler over filled columns would divide late positions by a spread
made of filling. How a track that is shorter than the longest is filled up, and
what that costs, is told in :mod:`tune_cache.aggregation.filling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np

from tune_cache.aggregation.base import Array, TrackAggregation
from tune_cache.aggregation.filling import Continuation, Fill
from tune_cache.errors import TaskError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tune_cache.cache.ragged import Ragged

__all__ = ["Concat", "scale_of", "statistics_of"]

MAX_BYTES = 2**31


class Concat(TrackAggregation):
    """Standardise segments, put them side by side, fill up what is absent.

    Costs n_tracks · max_segments · dim · itemsize bytes.

    Parameters
    ----------
    max_segments
        Longer tracks are cut to their first ``max_segments``; None takes the
        longest training track. A cap that no track reaches is lowered to it.
    fill
        Absent segments: ``draw`` what the track's continuation could be, the
        track's own ``mean``, or ``zero``. Nothing is filled, and all three are
        one, where tracks have the same number of segments.
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
    >>> Concat(fill="mean").fit(tracks[:1]).transform(tracks).tolist()
    [[-1.0, 1.0], [-1.0, -1.0]]
    """

    standardised_output: ClassVar[bool] = True

    def __init__(
        self, max_segments: int | None = None, fill: Fill = "draw", max_bytes: int = MAX_BYTES
    ) -> None:
        self.max_segments = max_segments
        self.fill = fill
        self.max_bytes = max_bytes

    def n_truncated(self, lengths: Array) -> int:
        return int(np.count_nonzero(np.asarray(lengths) > self.max_segments_))

    def share_padding(self, lengths: Array) -> float:
        return 1.0 - float(np.minimum(lengths, self.max_segments_).mean()) / self.max_segments_

    def check_options(self) -> None:
        if self.max_segments is not None and self.max_segments < 1:
            raise UsageError(f"max_segments is {self.max_segments!r}, expected 1 or more")
        if self.fill not in get_args(Fill):
            raise UsageError(f"fill is {self.fill!r}, expected one of {', '.join(get_args(Fill))}")

    def _learn(self, tracks: Ragged) -> None:
        longest = int(tracks.lengths.max())
        self.max_segments_ = min(longest, self.max_segments or longest)
        self._refuse_to_swap(len(tracks), np.result_type(tracks.values.dtype, np.float32))
        self.mean_ = tracks.values.mean(axis=0, dtype=np.float64)
        self.scale_ = scale_of(tracks.values, self.mean_)
        self._continuation = None
        if self.fill == "draw" and self.max_segments_ > 1:
            self._continuation = Continuation.of(tracks, self.mean_, self.scale_)

    def _aggregate(self, tracks: Ragged, dtype: np.dtype[Any]) -> Array:
        starts, lengths = tracks.offsets[:-1], np.minimum(tracks.lengths, self.max_segments_)
        self._refuse_to_swap(len(tracks), dtype)
        mean, scale = self.mean_.astype(dtype), self.scale_.astype(dtype)
        out = np.zeros((len(tracks), self.max_segments_, tracks.values.shape[1]), dtype=dtype)
        for position in range(self.max_segments_):
            there = np.flatnonzero(lengths > position)
            out[there, position] = (tracks.values[starts[there] + position] - mean) / scale
        for track in np.flatnonzero(lengths < self.max_segments_) if self.fill != "zero" else ():
            there, absent = out[track, : lengths[track]], out[track, lengths[track] :]
            if self._continuation is None:
                absent[:] = there.mean(axis=0)
            else:
                absent[:] = self._continuation.draw(tracks[track], there, len(absent))
        return out.reshape(len(tracks), -1)

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


def statistics_of(values: Array) -> tuple[Array, Array]:
    """Mean and spread of every column, of every layer if there are several: axis 0 goes."""
    flat = values.reshape(len(values), -1)
    mean = flat.mean(axis=0, dtype=np.float64)
    return mean.reshape(values.shape[1:]), scale_of(flat, mean).reshape(values.shape[1:])
