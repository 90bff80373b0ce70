"""Macro ROC-AUC and average precision of many resamples at once.

Conventions
-----------
``truth`` is (n_tracks, n_tags) of booleans, ``prediction`` any numbers of that
shape, larger meaning more likely. A tag without a positive, or without a
negative, has no score; the macro mean is over the tags that have one. Ties are
treated as scikit-learn treats them: half a win in ROC-AUC, one threshold in
average precision, which is not interpolated.

Each tag is sorted once. Copies of a track are integers, so a resample is a
cumulative sum of integers over the sorted negatives, all resamples side by side.

Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 2006,
section 7 (AUC as a rank statistic); Manning, Raghavan and Schütze,
"Introduction to Information Retrieval", 2008, section 8.4 (average precision).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tune_cache.probes.statistics.bootstrap import Scorer

__all__ = ["score_ranks"]

Array = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["roc_auc", "ap"]

RESAMPLES_AT_ONCE = 32  # of 5,000 tracks: the running sums stay in the processor's cache


@dataclass(frozen=True, slots=True)
class _Tag:
    """One tag in the order of its scores, tracks by the number of their group.

    Parameters
    ----------
    negatives, positives
        Groups, by ascending score.
    below, not_above
        For each positive: negatives with a lower score; with no higher one.
    first
        For each positive: positives with a lower score.
    """

    negatives: Array
    positives: Array
    below: Array
    not_above: Array
    first: Array

    @classmethod
    def of(cls, truth: Array, prediction: Array, number: Array) -> _Tag:
        order = np.argsort(prediction, kind="stable")
        is_positive = truth[order].astype(bool)
        negative, positive = prediction[order[~is_positive]], prediction[order[is_positive]]
        return cls(
            number[order[~is_positive]],
            number[order[is_positive]],
            np.searchsorted(negative, positive, "left"),
            np.searchsorted(negative, positive, "right"),
            np.searchsorted(positive, positive, "left"),
        )

    def score(self, copies: Array, kind: Kind) -> Array:
        """Score resamples, NaN where undefined; ``copies`` is (n_groups, n), integers."""
        lower = _running(copies[self.negatives])
        n_negative = lower[-1].astype(np.float64)
        weight = copies[self.positives]
        n_positive = weight.sum(axis=0).astype(np.float64)
        if kind == "roc_auc":
            wins = lower[self.below].astype(np.float64) + lower[self.not_above]
            found = np.einsum("pn,pn->n", weight, wins) / 2
            whole = n_positive * n_negative
        else:
            true = n_positive - _running(weight)[self.first]
            marked = true + (n_negative - lower[self.below])
            precision = np.divide(true, marked, out=np.zeros_like(true), where=marked > 0)
            found = np.einsum("pn,pn->n", weight, precision)
            whole = np.where(n_negative > 0, n_positive, 0.0)
        out = np.full(len(whole), np.nan)
        return np.asarray(np.divide(found, whole, out=out, where=whole > 0))


def _running(rows: Array) -> Array:
    """Sums of the first 0, 1, … rows."""
    sums = np.zeros((len(rows) + 1, rows.shape[1]), dtype=rows.dtype)
    np.cumsum(rows, axis=0, out=sums[1:])
    return sums


def score_ranks(truth: Array, prediction: Array, number: Array, kind: Kind) -> Scorer:
    """Make the scorer of macro ``roc_auc`` or ``ap``.

    Costs about n_resamples · n_tracks · n_tags additions of integers; memory is
    that of :data:`RESAMPLES_AT_ONCE` resamples of one tag.

    Parameters
    ----------
    number
        Of each track's group.
    """
    tags = [_Tag.of(truth[:, tag], prediction[:, tag], number) for tag in range(truth.shape[1])]

    def scores(copies: Array) -> Array:
        found = []
        for start in range(0, len(copies), RESAMPLES_AT_ONCE):
            some = copies[start : start + RESAMPLES_AT_ONCE].T
            some = np.ascontiguousarray(some, dtype=np.int32)  # floats would add up 4 × slower
            per_tag = np.stack([tag.score(some, kind) for tag in tags])
            defined = np.isfinite(per_tag)
            n_defined = defined.sum(axis=0)
            total = np.where(defined, per_tag, 0.0).sum(axis=0)
            out = np.full(len(total), np.nan)
            found.append(np.divide(total, n_defined, out=out, where=n_defined > 0))
        return np.concatenate(found)

    return scores
