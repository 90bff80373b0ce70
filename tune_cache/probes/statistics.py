"""How sure a score is: bootstrap intervals over groups.

Conventions
-----------
A metric is a function of *sums over tracks* (see :mod:`tune_cache.probes.metrics`),
so a resample is a weighted sum of per-group rows and all resamples are one
matrix product. Groups are drawn with replacement, all tracks of a group at
once, because clips of one song are not independent. Percentile intervals;
resamples in which a metric is undefined are left out.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13;
Field and Welsh, "Bootstrapping clustered data", JRSS B 2007.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["N_RESAMPLES", "bootstrap_interval"]

Array = np.ndarray[Any, np.dtype[Any]]

N_RESAMPLES = 1000
DRAWS_AT_ONCE = 2**22  # of groups; bounds memory at 32 MB for any data


def bootstrap_interval(
    per_track: Array,
    groups: Sequence[str],
    reduce: Callable[[Array], Array],
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Bound a score by resampling groups.

    The same seed and number of groups draw the same resamples, so intervals of
    different cells over the same tracks are comparable.

    Parameters
    ----------
    per_track : of shape (n_tracks, n_terms)
        Rows whose sum ``reduce`` turns into the score.
    groups
        One name a track.
    reduce
        From sums of shape (n, n_terms) to n scores; NaN where undefined.

    Returns
    -------
    low and high, both NaN where there are fewer than two groups or no defined resample
    """
    number = {name: index for index, name in enumerate(sorted(set(groups)))}
    n_groups = len(number)
    if n_groups < 2:
        return float("nan"), float("nan")
    per_group = np.zeros((n_groups, per_track.shape[1]))
    np.add.at(per_group, [number[name] for name in groups], per_track)
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // n_groups)
    scores = []
    for start in range(0, n_resamples, at_once):
        n = min(at_once, n_resamples - start)
        drawn = rng.integers(n_groups, size=(n, n_groups)) + np.arange(n)[:, None] * n_groups
        counts = np.bincount(drawn.ravel(), minlength=n * n_groups).reshape(n, n_groups)
        scores.append(reduce(counts.astype(np.float64) @ per_group))
    every = np.concatenate(scores)
    defined = every[np.isfinite(every)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    tail = 50 * (1 - confidence)
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)
