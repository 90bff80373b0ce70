"""What could follow a short track: filling that does not tell how short it was.

Conventions
-----------
Zeros are the mean of standardised rows, so they shift no column; but they have no
spread, and a classifier that has learnt nothing else tells tracks that sit still
from tracks that scatter. A track's own mean has spread, but short tracks then lie
in fewer dimensions than long ones, which an overfitted classifier finds as well.
So absent segments are drawn: from what a track of this kind goes on with. Per
dimension, a segment is its track's level plus a deviation; levels of variance
``between``, deviations of variance ``within``, from training tracks by one-way
analysis of variance (Searle, Casella and McCulloch, "Variance Components", 1992,
section 3.6). Given n segments the level is known up to the usual shrinkage, and
the rest, level and deviations, is borrowed from training tracks at random. Where
segments of a track are alike, the draw repeats them.

What each tells of length, and what draws cost, is measured in
``docs/adding-a-probe.md``. A track's draws depend on its own vectors and on the
training tracks, on no seed and no other track.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tune_cache.aggregation.base import Array

if TYPE_CHECKING:
    from tune_cache.cache.ragged import Ragged

__all__ = ["Continuation", "Fill"]

Fill = Literal["draw", "mean", "zero"]

MOST_KEPT = 4096  # training vectors that draws are made of: 16 MB at 1,024 dimensions


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """Training tracks as a source of levels and deviations, in standardised units.

    Parameters
    ----------
    between, within : of shape (dim,)
        Variances of levels, and of deviations from them.
    levels, deviations : of shape (n, dim), float32
        Of training tracks, scaled to these variances.
    """

    between: Array
    within: Array
    levels: Array
    deviations: Array

    @classmethod
    def of(cls, tracks: Ragged, mean: Array, scale: Array) -> Continuation:
        """Decompose training tracks, at least one of which has several segments."""
        rows = (tracks.values - mean.astype(np.float32)) / scale.astype(np.float32)
        n, lengths = len(tracks), tracks.lengths
        sums = np.add.reduceat(rows, tracks.offsets[:-1], axis=0, dtype=np.float64)
        levels = sums / lengths[:, None]
        rows -= np.repeat(levels.astype(np.float32), lengths, axis=0)
        within = np.square(rows).sum(axis=0, dtype=np.float64) / (lengths - 1).sum()
        between = np.zeros_like(within)
        if n > 1:
            typical = (lengths.sum() - np.square(lengths).sum() / lengths.sum()) / (n - 1)
            found = (lengths[:, None] * np.square(levels)).sum(axis=0) / (n - 1)
            between = np.maximum(0.0, (found - within) / typical)
        spread = np.sqrt(np.square(levels).mean(axis=0))
        levels *= np.sqrt(between) / np.where(spread > 0, spread, 1.0)
        several = np.repeat(lengths, lengths) > 1
        unbiased = np.sqrt(lengths / np.maximum(lengths - 1, 1))
        rows *= np.repeat(unbiased, lengths)[:, None]
        return cls(
            between=between,
            within=within,
            levels=_some(levels),
            deviations=_some(rows[several]),
        )

    def draw(self, vectors: Array, standardised: Array, n: int) -> Array:
        """Continue a track by ``n`` segments.

        Parameters
        ----------
        vectors : of shape (n_segments, dim)
            The track as given, which the draw depends on by its bytes in float32.
        standardised
            Those of its segments that are used.
        """
        rng = np.random.default_rng(zlib.crc32(vectors.astype(np.float32).tobytes()))
        uncertain = self.between + self.within / len(standardised)
        known = np.divide(
            self.between, uncertain, out=np.zeros_like(uncertain), where=uncertain > 0
        )
        level = known * standardised.mean(axis=0)
        level += np.sqrt(1 - known) * self.levels[rng.integers(len(self.levels))]
        drawn: Array = level + self.deviations[rng.integers(len(self.deviations), size=n)]
        return drawn


def _some(rows: Array) -> Array:
    """At most :data:`MOST_KEPT` rows, evenly spaced."""
    step = -(-len(rows) // MOST_KEPT)
    return np.ascontiguousarray(rows[::step], dtype=np.float32)
