"""From scores of resamples to intervals that keep their word with few groups.

Conventions
-----------
Percentiles of resamples are too narrow where groups are few: a resample varies by
(n - 1) / n of what samples do, and its spread is itself uncertain. So they are
*expanded* to where Student's t would stand (Hesterberg, "What Teachers Should Know
About the Bootstrap", The American Statistician 2015, section 5.3), by the number of
groups that unequal sizes amount to (Kish, "Survey Sampling", 1965, section 8.2).
Which rule serves which score was decided by simulation: ``docs/statistics.md``.
Resamples in which a score is undefined are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tune_cache.probes.statistics.bootstrap import Scorer

__all__ = [
    "beside_made_up_groups",
    "bias_corrected_interval",
    "effective_groups",
    "expanded_percentiles",
    "log_interval",
    "percentile_interval",
]

Array = np.ndarray[Any, np.dtype[Any]]
Interval = tuple[float, float]

TAIL = 0.025
N_BLOCKS = 1000
BLOCKS_AT_ONCE = 100
LARGEST = 100.0  # of a logarithm: beyond it there is no interval worth a number
UNDEFINED = (math.nan, math.nan)


def effective_groups(number: Array) -> float:
    """Number of groups of equal size that groups of these sizes are worth, at least 2.

    Examples
    --------
    >>> effective_groups(np.array([0, 1, 2, 2])), effective_groups(np.arange(5))
    (2.6666666666666665, 5.0)
    """
    sizes = np.bincount(number).astype(np.float64)
    return max(2.0, float(sizes.sum() ** 2 / np.square(sizes).sum()))


def _widened(n_groups: float, tail: float = TAIL) -> float:
    """Standard errors, of resamples, to where a tail of Student's t begins."""
    from scipy.special import stdtrit

    return float(math.sqrt(n_groups / (n_groups - 1)) * -stdtrit(n_groups - 1, tail))


def _normal(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def percentile_interval(scores: Array, tail: float = TAIL) -> Interval:
    """Bound all but a tail on each side of the defined scores; NaN where none is defined."""
    defined = scores[np.isfinite(scores)]
    if len(defined) == 0:
        return UNDEFINED
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def expanded_percentiles(scores: Array, n_groups: float, tail: float = TAIL) -> Interval:
    """Percentiles, further out by Student's t and the spread that resamples lack."""
    return percentile_interval(scores, _normal(-_widened(n_groups, tail)))


def bias_corrected_interval(scores: Array, value: float, n_groups: float) -> Interval:
    """Expanded percentiles, shifted by as much as resamples are off their middle.

    The shift is limited so that the value lies inside.

    References
    ----------
    Efron, "Nonparametric standard errors and confidence intervals", Canadian
    Journal of Statistics 1981 (bias-corrected percentiles).
    """
    from scipy.special import ndtri

    defined = scores[np.isfinite(scores)]
    if len(defined) == 0 or math.isnan(value):
        return UNDEFINED
    z = _widened(n_groups)
    below = np.count_nonzero(defined < value) + np.count_nonzero(defined == value) / 2
    shift = float(np.clip(ndtri(below / len(defined)), -z / 2, z / 2))
    low, high = np.quantile(defined, [_normal(2 * shift - z), _normal(2 * shift + z)])
    return float(low), float(high)


def log_interval(
    scorer: Scorer,
    value: float,
    number: Array,
    loss: Callable[[Array], Array],
    *,
    seed: int,
) -> Interval:
    """Student's t around the logarithm of a loss, its standard error by the jackknife.

    For ratios of sums of squares, whose logarithm is nearly normal where they
    themselves are not. Leaving out one group at a time, or one of 1,000 blocks
    of groups, errs to the wide side where resampling errs to the narrow one.

    Parameters
    ----------
    number
        Of each track's group.
    loss
        A line from scores to positive numbers.
    seed
        Deals groups to blocks.

    References
    ----------
    Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 1981;
    Miller, "The jackknife: a review", Biometrika 1974 (transformations).
    """
    from scipy.special import stdtrit

    n_groups = int(number.max()) + 1
    n_blocks = min(n_groups, N_BLOCKS)
    block = np.random.default_rng(seed).permutation(n_groups) % n_blocks
    without = []
    for first in range(0, n_blocks, BLOCKS_AT_ONCE):
        some = np.arange(first, min(first + BLOCKS_AT_ONCE, n_blocks))
        without.append(scorer((block != some[:, None]).astype(np.int8)))
    losses, here = loss(np.concatenate(without)), float(loss(np.array([value]))[0])
    if not (here > 0 and np.all(np.isfinite(losses)) and losses.min() > 0):
        return (value, value) if here == 0 else UNDEFINED
    error = math.sqrt(n_blocks - 1) * float(np.log(losses).std())
    width = min(-float(stdtrit(effective_groups(number) - 1, TAIL)) * error, LARGEST)
    # loss = a + b · score: back by the same line
    start, slope = float(loss(np.zeros(1))[0]), float(np.diff(loss(np.arange(2.0)))[0])
    ends = [(here * math.exp(side) - start) / slope for side in (-width, width)]
    return min(ends), max(ends)


def beside_made_up_groups(scorer: Scorer, number: Array) -> tuple[Scorer, int]:
    """Add two groups of mean size to a share of tracks: one all right, one all wrong.

    Without them 20 right of 20 would have an interval of no width.

    Returns
    -------
    a scorer, and the number of groups it takes

    References
    ----------
    Agresti and Caffo, "Simple and effective confidence intervals for proportions and
    differences of proportions result from adding two successes and two failures",
    The American Statistician 2000 (one of each a sample).
    """
    sizes = np.bincount(number).astype(np.float64)
    mean = sizes.mean()

    def scores(copies: Array) -> Array:
        real, right, wrong = copies[:, :-2], copies[:, -2], copies[:, -1]
        n_tracks = real @ sizes
        points = np.where(n_tracks > 0, scorer(real), 0.0) * n_tracks + mean * right
        n_tracks = n_tracks + mean * (right + wrong)
        return np.asarray(
            np.divide(points, n_tracks, out=np.full(len(points), np.nan), where=n_tracks > 0)
        )

    return scores, len(sizes) + 2
