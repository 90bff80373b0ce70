"""Vectors of more tracks than should be in memory at once, read some tracks at a time.

Conventions
-----------
What goes track by track takes :meth:`Pieced.pieces`; whoever asks for ``values``
gets all of them, read once and kept for as long as the object is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from tune_cache.cache.ragged import Ragged

__all__ = ["PIECE_ROWS", "Pieced", "bounds", "in_memory"]

Array = np.ndarray[Any, np.dtype[Any]]

PIECE_ROWS = 100_000  # 200 MB of 1,024 dimensions in float16


def bounds(offsets: Array) -> Iterator[slice]:
    """Cut tracks into runs of at most :data:`PIECE_ROWS` rows, or of one track; into one at least.

    Examples
    --------
    >>> list(bounds(np.array([0, 60_000, 90_000, 290_000, 290_001])))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    start, n_tracks = 0, len(offsets) - 1
    while True:
        fits = int(np.searchsorted(offsets, offsets[start] + PIECE_ROWS, side="right")) - 1
        stop = min(max(fits, start + 1), n_tracks)
        yield slice(start, stop)
        start = stop
        if start >= n_tracks:
            return


class Pieced(Ragged):
    """Segment vectors grouped by track, that are read when they are asked for.

    Parameters
    ----------
    read
        Reads tracks by their positions, in the order given.
    offsets, n_samples
        As of :class:`~tune_cache.cache.ragged.Ragged`.
    positions
        What ``read`` calls each track; counts from 0 if None.
    n_read
        Rows that reading each track takes, which is what pieces are counted in;
        those it has if None.
    """

    __slots__ = ("_kept", "_positions", "_read", "n_read")

    _kept: Ragged | None
    _positions: Array
    _read: Callable[[Array], Ragged]
    n_read: Array

    def __init__(
        self,
        read: Callable[[Array], Ragged],
        *,
        offsets: Array,
        n_samples: Array,
        positions: Array | None = None,
        n_read: Array | None = None,
    ) -> None:
        fields = {
            "_read": read,
            "_positions": np.arange(len(offsets) - 1) if positions is None else positions,
            "_kept": None,
            "n_read": np.diff(offsets) if n_read is None else n_read,
            "offsets": np.asarray(offsets, dtype=np.int64),
            "n_samples": np.asarray(n_samples, dtype=np.int64),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def values(self) -> Array:
        """All rows."""
        if self._kept is None:
            object.__setattr__(self, "_kept", self.whole())
        assert self._kept is not None
        return self._kept.values

    def whole(self) -> Ragged:
        """Read all rows, without keeping them."""
        return self._read(self._positions) if self._kept is None else self._kept

    def pieces(self) -> Iterator[Ragged]:
        """Read consecutive tracks, :data:`PIECE_ROWS` rows or one track at a time."""
        for some in bounds(np.concatenate([[0], np.cumsum(self.n_read)])):
            yield in_memory(self[some])

    def then(self, change: Callable[[Ragged], Ragged]) -> Pieced:
        """Change what is read, track by track, whatever the values."""
        read = self._read
        without = Ragged(
            values=np.empty((len(self.n_samples), 0), np.float32),
            offsets=self.offsets,
            n_samples=self.n_samples,
        )
        changed = change(without)
        return Pieced(
            lambda positions: change(read(positions)),
            offsets=changed.offsets,
            n_samples=changed.n_samples,
            positions=self._positions,
            n_read=self.n_read,
        )

    def __iter__(self) -> Iterator[Array]:
        for piece in self.pieces():
            yield from piece

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Array: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | Array) -> Ragged: ...
    def __getitem__(
        self, key: int | np.integer[Any] | slice | Sequence[int] | Array
    ) -> Array | Ragged:
        if self._kept is not None:
            return self._kept[key]
        if isinstance(key, int | np.integer):
            return self[[int(key)]].values
        lengths = Ragged(
            values=np.empty((len(self.n_samples), 0)),
            offsets=self.offsets,
            n_samples=self.n_samples,
        )[key]
        places = np.arange(len(self))[key if isinstance(key, slice) or len(key) else slice(0)]
        return Pieced(
            self._read,
            offsets=lengths.offsets,
            n_samples=lengths.n_samples,
            positions=self._positions[places],
            n_read=self.n_read[places],
        )


def in_memory(tracks: Ragged) -> Ragged:
    """The same tracks, with their rows read."""
    return tracks.whole() if isinstance(tracks, Pieced) else tracks
