"""Vectors of tracks with different numbers of segments, in one array.

Conventions
-----------
Rows of track t are ``offsets[t]:offsets[t + 1]``; a track may have none.
``values`` is (n_segments, dim) or (n_segments, n_layers, dim). Slices and one
track are views; any other selection copies.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np

__all__ = ["Ragged"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ragged:
    """Segment vectors grouped by track.

    Parameters
    ----------
    values : of shape (n_segments, dim) or (n_segments, n_layers, dim)
        Floating point, all tracks one after the other.
    offsets : of shape (n_tracks + 1,), int64
        From 0 to n_segments, never falling.
    n_samples : of shape (n_segments,), int64
        Real audio samples behind each segment, before any padding.

    Examples
    --------
    >>> tracks = Ragged.from_tracks([np.ones((2, 3)), np.zeros((1, 3))])
    >>> len(tracks), tracks.lengths.tolist(), tracks[0].shape
    (2, [2, 1], (2, 3))
    >>> tracks[[1, 0]].offsets.tolist()
    [0, 1, 3]
    """

    values: Array
    offsets: Array
    n_samples: Array

    def __post_init__(self) -> None:
        offsets = np.asarray(self.offsets, dtype=np.int64)
        n_samples = np.asarray(self.n_samples, dtype=np.int64)
        n_rows = len(self.values)
        if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != n_rows:
            raise ValueError(f"offsets must run from 0 to the number of rows, {n_rows}")
        if np.any(np.diff(offsets) < 0):
            raise ValueError("offsets must never fall")
        if n_samples.shape != (n_rows,):
            raise ValueError(f"n_samples has shape {n_samples.shape}, expected ({n_rows},)")
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "n_samples", n_samples)

    @classmethod
    def from_tracks(cls, tracks: Sequence[Array], n_samples: Array | None = None) -> Ragged:
        """Join one array a track; without ``n_samples`` every segment counts as one."""
        if len(tracks) == 0:
            raise ValueError("no tracks: the width of a vector is unknown")
        values = np.concatenate([np.asarray(track) for track in tracks])
        offsets = np.concatenate([[0], np.cumsum([len(track) for track in tracks])])
        if n_samples is None:
            n_samples = np.ones(len(values), dtype=np.int64)
        return cls(values=values, offsets=offsets, n_samples=n_samples)

    @property
    def lengths(self) -> Array:
        """Segments per track, of shape (n_tracks,)."""
        return np.diff(self.offsets)

    def layer(self, position: int) -> Ragged:
        """One layer of a (n_segments, n_layers, dim) array, as a view.

        ``position`` counts along the axis; it is the layer's index only if all
        layers were read.
        """
        if self.values.ndim != 3:
            raise ValueError(f"values have shape {self.values.shape}: there is no layer axis")
        return Ragged(
            values=self.values[:, position], offsets=self.offsets, n_samples=self.n_samples
        )

    @property
    def iloc(self) -> Self:
        """What scikit-learn selects by; with it, folds of a search keep ``n_samples``."""
        return self

    def take(self, tracks: Sequence[int] | Array, axis: int = 0) -> Ragged:
        """Select tracks by their positions, as scikit-learn asks for them."""
        if axis != 0:
            raise ValueError(f"axis is {axis!r}: only tracks can be taken")
        return self[tracks]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Array]:
        return (self[track] for track in range(len(self)))

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Array: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | Array) -> Ragged: ...
    def __getitem__(
        self, key: int | np.integer[Any] | slice | Sequence[int] | Array
    ) -> Array | Ragged:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
            return self._take(np.array(range(start, stop, step), dtype=np.int64))
        if isinstance(key, int | np.integer):
            track = range(len(self))[operator.index(key)]
            return self.values[self.offsets[track] : self.offsets[track + 1]]
        if len(key) == 0:
            return self._between(0, 0)
        return self._take(np.arange(len(self))[np.asarray(key)])

    def _between(self, start: int, stop: int) -> Ragged:
        """Neighbouring tracks, as a view."""
        rows = slice(int(self.offsets[start]), int(self.offsets[stop]))
        return Ragged(
            values=self.values[rows],
            offsets=self.offsets[start : stop + 1] - self.offsets[start],
            n_samples=self.n_samples[rows],
        )

    def _take(self, tracks: Array) -> Ragged:
        """Any tracks in any order, copied in one pass."""
        lengths = self.lengths[tracks]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.offsets[tracks] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(values=self.values[rows], offsets=offsets, n_samples=self.n_samples[rows])
