"""Paired tests, their correction, and what n tracks could show at all.

Conventions
-----------
Two cells are compared on the same tracks. ``both`` is a scorer over 2 n groups:
the first n are the groups with the predictions of one cell, the next n the same
groups with those of the other. p-values are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from tune_cache.probes.statistics.bootstrap import Scorer, blocks

__all__ = ["N_PERMUTATIONS", "holm", "mcnemar", "permutation_test", "smallest_detectable"]

Array = np.ndarray[Any, np.dtype[Any]]

N_PERMUTATIONS = 10_000


def permutation_test(
    both: Scorer, n_groups: int, *, seed: int, n_permutations: int = N_PERMUTATIONS
) -> float:
    """Test whether two cells' predictions could be exchanged, group by group.

    Under that hypothesis each group's predictions may be swapped without
    changing the distribution of the difference of scores; the p-value is the
    share of random swaps whose difference is at least as large, the one found
    among them, so that it is never zero.

    Returns
    -------
    NaN where the difference itself is undefined

    References
    ----------
    Phipson and Smyth, "Permutation p-values should never be zero", Statistical
    Applications in Genetics and Molecular Biology 2010; Noreen, "Computer-
    Intensive Methods for Testing Hypotheses", 1989, chapter 2 (swapping).
    """
    rng = np.random.default_rng(seed)
    found = abs(_difference(both, np.ones((1, n_groups), dtype=np.int8))[0])
    if not np.isfinite(found):
        return float("nan")
    n_extreme = n_defined = 0
    for n in blocks(n_permutations, 2 * n_groups):
        kept = rng.integers(0, 2, size=(n, n_groups), dtype=np.int8)
        swapped = np.abs(_difference(both, kept))
        n_defined += int(np.isfinite(swapped).sum())
        n_extreme += int((swapped >= found - 1e-12).sum())  # ties, up to rounding
    return (1 + n_extreme) / (1 + n_defined)


def _difference(both: Scorer, kept: Array) -> Array:
    """Difference of the scores when only the groups marked 1 keep their side."""
    other = 1 - kept
    return both(np.hstack([kept, other])) - both(np.hstack([other, kept]))


def mcnemar(n_only_first: int, n_only_second: int) -> float:
    """Test two classifiers on the tracks that only one of them gets right (exact).

    What :func:`permutation_test` approaches with ever more permutations where
    every track is its own group.

    References
    ----------
    McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 1947; the exact form is the sign
    test: Conover, "Practical Nonparametric Statistics", 3rd ed. 1999, section 3.5.

    Examples
    --------
    >>> mcnemar(1, 5)
    0.21875
    """
    n, fewer = n_only_first + n_only_second, min(n_only_first, n_only_second)
    ways = tail = 1  # of n tracks to fall on the rarer side k times, and at most k times
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that one false alarm in the whole table is as rare as asked for.

    Undefined ones (NaN) are no tests: they are not counted and stay undefined.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[index] = largest
    return corrected


def smallest_detectable(standard_error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Difference that a two-sided test of one pair finds with the given power.

    2.80 standard errors of the paired difference by default.

    References
    ----------
    Bloom, "Minimum detectable effects: a simple way to report the statistical
    power of experimental designs", Evaluation Review 1995.
    """
    normal = NormalDist()
    return standard_error * (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power))
