"""Several segment lengths at once: the same tracks, cut in several ways.

Conventions
-----------
A *scale* is one segment length of one encoder. Segments of each scale are pooled
first, so a scale with many segments weighs no more than one with few; then the
scales are averaged, or put side by side in the order given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, overload

import numpy as np

from tune_cache.aggregation.base import Array, TrackAggregation
from tune_cache.aggregation.pooling import Pooling
from tune_cache.cache.pieces import Pieced, bounds, in_memory
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, UsageError

__all__ = ["MultiScale", "Scales"]

Combine = Literal["mean", "concat"]


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """The segments of the same tracks at several scales.

    Parameters
    ----------
    parts
        One :class:`~tune_cache.cache.ragged.Ragged` a scale, tracks in the same order.

    Examples
    --------
    >>> short = Ragged.from_tracks([np.ones((3, 2)), np.ones((1, 2))])
    >>> long = Ragged.from_tracks([np.ones((1, 2)), np.ones((1, 2))])
    >>> both = Scales((short, long))
    >>> len(both), both.lengths.tolist(), len(both[0])
    (2, [3, 1], 2)
    """

    parts: tuple[Ragged, ...]

    def __post_init__(self) -> None:
        counts = [len(part) for part in self.parts]
        if len(set(counts)) != 1:
            raise ValueError(f"scales have {counts} tracks, expected the same in each")

    @property
    def lengths(self) -> Array:
        """Segments per track at the scale that has most of them, of shape (n_tracks,)."""
        return np.asarray(np.max([part.lengths for part in self.parts], axis=0))

    @property
    def iloc(self) -> Self:
        """What scikit-learn selects by."""
        return self

    @property
    def is_pieced(self) -> bool:
        """Whether any scale is read when it is asked for."""
        return any(isinstance(part, Pieced) for part in self.parts)

    def pieces(self) -> Iterator[Scales]:
        """Read consecutive tracks, some rows of all scales or one track at a time."""
        n_read = sum(p.n_read if isinstance(p, Pieced) else p.lengths for p in self.parts)
        for some in bounds(np.concatenate([[0], np.cumsum(n_read)])):
            yield self[some].in_memory()

    def in_memory(self) -> Scales:
        """The same tracks, with their rows read."""
        return Scales(tuple(map(in_memory, self.parts)))

    def take(self, tracks: Sequence[int] | Array, axis: int = 0) -> Scales:
        """Select tracks by their positions, as scikit-learn asks for them."""
        return Scales(tuple(part.take(tracks, axis) for part in self.parts))

    def __len__(self) -> int:
        return len(self.parts[0])

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> tuple[Array, ...]: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | Array) -> Scales: ...
    def __getitem__(
        self, key: int | np.integer[Any] | slice | Sequence[int] | Array
    ) -> tuple[Array, ...] | Scales:
        if isinstance(key, int | np.integer):
            return tuple(part[key] for part in self.parts)
        return Scales(tuple(part[key] for part in self.parts))


class MultiScale(TrackAggregation):
    """Pool each scale, then average the scales or put them side by side.

    Takes :class:`Scales`, or a list with one tuple of arrays a track; whatever
    other aggregations take is one scale.

    Parameters
    ----------
    combine
        ``mean`` needs vectors of one space, which one encoder's are; ``concat``
        lets the probe weigh the scales.
    statistics
        Of the segments of each scale, as :class:`~tune_cache.aggregation.pooling.Pooling`
        takes them.

    Attributes
    ----------
    n_scales_
        Seen in ``fit``.

    Examples
    --------
    >>> track = (np.array([[1.0], [3.0]]), np.array([[5.0]]))
    >>> MultiScale("mean").fit_transform([track]).tolist()
    [[3.5]]
    >>> MultiScale("concat").fit_transform([track]).tolist()
    [[2.0, 5.0]]
    """

    def __init__(self, combine: Combine = "concat", statistics: str = "mean") -> None:
        self.combine = combine
        self.statistics = statistics

    @property
    def sees_length(self) -> bool:
        return self._pooling().sees_length

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn how many scales there are; ``y`` is ignored."""
        if self.combine not in get_args(Combine):
            raise UsageError(f"combine is {self.combine!r}, expected mean or concat")
        if isinstance(X, Scales) and X.is_pieced:
            X = X[:1].in_memory()
        parts = _scales(X)
        for number, part in enumerate(parts):
            self._segments(part, reset=number == 0)
        self.n_scales_ = len(parts)
        self._pooling().fit(np.zeros((1, 1)))  # a wrong name is an error of fit
        return self

    def transform(self, X: Any) -> Array:
        """Aggregate each track, in order, to shape (n_tracks, n_features)."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        if isinstance(X, Scales) and X.is_pieced:
            return np.concatenate([self.transform(piece) for piece in X.pieces()])
        parts = _scales(X)
        if len(parts) != self.n_scales_:
            raise TaskError(f"tracks have {len(parts)} scales, expected {self.n_scales_}")
        pooled = [self._pooling().fit_transform(self._segments(p, reset=False)) for p in parts]
        if self.combine == "concat":
            return np.hstack(pooled)
        return np.asarray(sum(pooled[1:], pooled[0]) / pooled[0].dtype.type(len(pooled)))

    def _pooling(self) -> Pooling:
        return Pooling(self.statistics)

    def _parts(self) -> Sequence[str]:
        parts = str(self.statistics).split("+")
        if self.combine == "mean":
            return parts
        return [f"scale{number}_{part}" for number in range(self.n_scales_) for part in parts]

    def _aggregate(self, tracks: Ragged, dtype: np.dtype[Any]) -> Array:
        raise NotImplementedError("transform pools scale by scale")


def _scales(X: Any) -> Sequence[Any]:
    """One input of other aggregations a scale."""
    if isinstance(X, Scales):
        return X.parts
    if isinstance(X, list | tuple) and len(X) and isinstance(X[0], tuple):
        counts = {len(track) if isinstance(track, tuple) else 1 for track in X}
        if len(counts) > 1:
            raise TaskError(f"tracks have different numbers of scales: {sorted(counts)}")
        return [list(part) for part in zip(*X, strict=True)]
    return [X]
