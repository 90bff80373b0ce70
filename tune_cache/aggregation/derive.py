"""Longer segments from shorter ones: pooling without its context.

Conventions
-----------
An encoder that hears 30 s at once gives another vector than the mean of its
vectors of three times 10 s: the difference is context, the rest is pooling.
Derived segments have the grid of true ones of that length, so the two can stand
side by side.
"""

from __future__ import annotations

import numpy as np

from tune_cache.cache.ragged import Ragged
from tune_cache.errors import UsageError

__all__ = ["derive"]


def derive(tracks: Ragged, n: int, *, min_tail_samples: int = 0) -> Ragged:
    """Average each track's runs of ``n`` consecutive segments, weighted by their lengths.

    The last run of a track may have fewer. Meant for segments without overlap:
    then the result is what pooling frames over the whole run would give, had
    each frame been encoded within its own segment.

    Parameters
    ----------
    tracks
        With values of shape (n_segments, dim).
    min_tail_samples
        A last run shorter than ``n`` with less audio than this is left out, unless
        it is the track's only one: the rule by which true segments are cut.

    Returns
    -------
    float32 at least; ``n_samples`` are sums

    Examples
    --------
    >>> tracks = Ragged.from_tracks([np.array([[1.0], [2.0], [3.0], [10.0]])])
    >>> derive(tracks, 2).values.ravel().tolist()
    [1.5, 6.5]
    """
    if n < 1:
        raise UsageError(f"derived segments are of {n!r} segments, expected 1 or more")
    lengths = tracks.lengths
    n_runs = -(-lengths // n)
    ends = np.cumsum(n_runs)
    within = np.arange(n_runs.sum()) - np.repeat(ends - n_runs, n_runs)
    starts = np.repeat(tracks.offsets[:-1], n_runs) + n * within
    dtype = np.result_type(tracks.values.dtype, np.float32)
    if len(starts) == 0:
        return Ragged(
            values=tracks.values.astype(dtype),
            offsets=tracks.offsets,
            n_samples=tracks.n_samples,
        )
    n_samples = np.add.reduceat(tracks.n_samples, starts)
    run_lengths = np.diff(starts, append=len(tracks.values))
    weights = tracks.n_samples / np.repeat(n_samples, run_lengths)
    values = np.add.reduceat(tracks.values * weights[:, None].astype(dtype), starts, axis=0)
    keep = (within == 0) | (run_lengths == n) | (n_samples >= min_tail_samples)
    kept = np.bincount(np.repeat(np.arange(len(tracks)), n_runs)[keep], minlength=len(tracks))
    return Ragged(
        values=values[keep],
        offsets=np.concatenate([[0], np.cumsum(kept)]),
        n_samples=n_samples[keep],
    )
