"""What a metric is, and how one becomes a score with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tune_cache.probes.statistics import (
    N_RESAMPLES,
    Scorer,
    beside_made_up_groups,
    bias_corrected_interval,
    bootstrap_scores,
    effective_groups,
    log_interval,
    number_groups,
    percentile_interval,
    score_ranks,
    score_sums,
)

__all__ = ["Array", "Metric", "Score", "divide", "score"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score with its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


def _no_terms(truth: Array, prediction: Array) -> Array:
    raise NotImplementedError("a metric of ranks is no function of sums")


def _no_sums(sums: Array) -> Array:
    raise NotImplementedError("a metric of ranks is no function of sums")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A score as a function of sums over tracks, or of ranks.

    Parameters
    ----------
    terms
        From truth and prediction to an array (n_tracks, n_terms).
    reduce
        From sums (n, n_terms) to n scores.
    ranks
        Which score of ranks it is; then there are no terms.
    larger_is_better
        Choices are made only by metrics for which it is.
    is_share
        It is a mean over tracks of points from 0 to 1.
    loss
        A line from scores to a positive loss whose logarithm is nearly normal.
    """

    name: str
    terms: Callable[[Array, Array], Array] = _no_terms
    reduce: Callable[[Array], Array] = _no_sums
    ranks: Literal["", "roc_auc", "ap"] = ""
    larger_is_better: bool = True
    is_share: bool = False
    loss: Callable[[Array], Array] | None = None

    def scorer(self, truth: Array, prediction: Array, number: Array, n_groups: int) -> Scorer:
        """Make the scorer of resamples of numbered groups."""
        if self.ranks:
            return score_ranks(truth > 0, prediction, number, self.ranks)
        return score_sums(self.terms(truth, prediction), number, n_groups, self.reduce)

    def __call__(self, truth: Array, prediction: Array) -> float:
        one_group = np.zeros(len(truth), dtype=np.int64)
        return float(self.scorer(truth, prediction, one_group, 1)(np.ones((1, 1)))[0])

    def interval(
        self,
        value: float,
        scorer: Scorer,
        number: Array,
        *,
        seed: int,
        n_resamples: int = N_RESAMPLES,
    ) -> tuple[float, float]:
        """Bound a score by the rule that serves it, with 95 % confidence.

        Parameters
        ----------
        scorer
            Of groups numbered as ``number`` says, perhaps a mean over models.

        Returns
        -------
        low and high, both NaN where there are fewer than two groups or no defined resample
        """
        n_groups = int(number.max(initial=-1)) + 1
        if n_groups < 2:
            return math.nan, math.nan
        if self.loss is not None:
            return log_interval(scorer, value, number, self.loss, seed=seed)
        if self.is_share:
            scorer, n_groups = beside_made_up_groups(scorer, number)
        drawn = bootstrap_scores(scorer, n_groups, seed=seed, n_resamples=n_resamples)
        if self.is_share:
            return percentile_interval(drawn)
        return bias_corrected_interval(drawn, value, effective_groups(number))


def divide(numerator: Array, denominator: Array) -> Array:
    """Divide, NaN where the denominator is not positive."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def score(
    metric: Metric,
    truth: Array,
    prediction: Array | Sequence[Array],
    groups: Sequence[str],
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> Score:
    """Compute a metric over all tracks, with its interval over groups.

    Parameters
    ----------
    prediction
        Or several, of models that differ by chance: the score is the mean of
        theirs, and a resample draws models as well as groups.
    """
    several = [prediction] if isinstance(prediction, np.ndarray) else list(prediction)
    number, n_groups = number_groups([str(group) for group in groups])
    scorers = [metric.scorer(truth, one, number, n_groups) for one in several]
    everything = np.ones((1, n_groups))
    value = float(np.mean([scorer(everything)[0] for scorer in scorers]))
    rng = np.random.default_rng(seed)

    def scored(copies: Array) -> Array:
        found = np.array([scorer(copies) for scorer in scorers])
        if len(found) == 1:
            return np.asarray(found[0])
        drawn = rng.integers(len(found), size=found.shape)
        return np.asarray(np.take_along_axis(found, drawn, axis=0).mean(axis=0))

    low, high = metric.interval(value, scored, number, seed=seed, n_resamples=n_resamples)
    return Score(value=value, low=low, high=high)
