"""Bootstrap by group: resamples of scores, and of anything made of scores.

Conventions
-----------
A *scorer* maps numbers of copies of each group, of shape (n, n_groups), to n
scores, so that all resamples are one call. Groups are drawn with replacement,
all tracks of a group at once, because clips of one song are not independent.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13;
Field and Welsh, "Bootstrapping clustered data", JRSS B 2007.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

__all__ = [
    "N_RESAMPLES",
    "Scorer",
    "blocks",
    "bootstrap_scores",
    "number_groups",
    "score_sums",
]

Array = np.ndarray[Any, np.dtype[Any]]
Scorer = Callable[[Array], Array]

N_RESAMPLES = 2000
DRAWS_AT_ONCE = 2**22  # of groups; bounds memory at 32 MB for any data


def number_groups(groups: Sequence[str]) -> tuple[Array, int]:
    """Number groups in the order of their names.

    Returns
    -------
    the number of each track's group, of shape (n_tracks,), and how many groups there are

    Examples
    --------
    >>> number_groups(["b", "a", "b"])
    (array([1, 0, 1]), 2)
    """
    number = {name: index for index, name in enumerate(sorted(set(groups)))}
    return np.array([number[name] for name in groups], dtype=np.int64), len(number)


def score_sums(
    per_track: Array, number: Array, n_groups: int, reduce: Callable[[Array], Array]
) -> Scorer:
    """Make the scorer of a metric that is a function of sums over tracks.

    A resample is then a weighted sum of one row a group, and all resamples are
    one matrix product.

    Parameters
    ----------
    per_track : of shape (n_tracks, n_terms)
        Rows whose sum ``reduce`` turns into the score.
    number
        Of each track's group.
    reduce
        From sums of shape (n, n_terms) to n scores; NaN where undefined.
    """
    per_group = np.zeros((n_groups, per_track.shape[1]))
    np.add.at(per_group, number, per_track)
    return lambda copies: reduce(copies.astype(np.float64) @ per_group)


def blocks(n: int, n_groups: int) -> Iterator[int]:
    """Cut ``n`` draws of ``n_groups`` into shares that memory can hold.

    Examples
    --------
    >>> list(blocks(5, 2**21))
    [2, 2, 1]
    """
    at_once = max(1, DRAWS_AT_ONCE // n_groups)
    for start in range(0, n, at_once):
        yield min(at_once, n - start)


def bootstrap_scores(
    scorer: Scorer, n_groups: int, *, seed: int, n_resamples: int = N_RESAMPLES
) -> Array:
    """Score resamples of the groups, of shape (n_resamples,), NaN where undefined.

    The same seed and number of groups draw the same resamples, so what is
    computed for different cells over the same tracks is paired.
    """
    rng = np.random.default_rng(seed)
    scores = []
    for n in blocks(n_resamples, n_groups):
        drawn = rng.integers(n_groups, size=(n, n_groups)) + np.arange(n)[:, None] * n_groups
        copies = np.bincount(drawn.ravel(), minlength=n * n_groups).reshape(n, n_groups)
        scores.append(scorer(copies))
    return np.concatenate(scores)
