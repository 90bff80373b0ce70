"""Two cells on the tracks they have in common: how far apart, and how sure that is.

Conventions
-----------
A cell is the results of one configuration, one a seed; its score is the mean
over seeds. Differences are first minus second, larger scores being better.
Everything is computed from the predictions on one split, test unless said, on
tracks that both have, and drawn by group. Nothing here chooses anything.

For accuracy two made-up groups stand beside the real ones whenever groups are
resampled: one that only the first cell gets right, one only the second. Without
them no disagreement in n tracks would pass for proof that there is none:
Bonett and Price, "Adjusted Wald confidence interval for a difference of
binomial proportions based on paired data", J. Educational and Behavioral
Statistics 2012.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tune_cache.errors import TaskError
from tune_cache.probes.common import (
    Cell,
    CommonTracks,
    common_tracks,
    distinct_seeds,
    tracks_of,
)
from tune_cache.probes.metrics import Score
from tune_cache.probes.result import Label, without_nan
from tune_cache.probes.statistics import (
    N_PERMUTATIONS,
    Scorer,
    bootstrap_scores,
    effective_groups,
    expanded_percentiles,
    mcnemar,
    percentile_interval,
    permutation_test,
    score_sums,
    smallest_detectable,
)

__all__ = ["MARGIN", "Comparison", "TrackDifference", "compare", "score_of", "track_differences"]

Array = np.ndarray[Any, np.dtype[Any]]

MARGIN = 0.02
MADE_UP = ("accuracy",)  # has made-up groups, which do what expanding percentiles does elsewhere
FEW_GROUPS = 20  # below it equivalence is never claimed
N_RESAMPLES = 2000
SEED = 1234


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the common tracks say about a difference.

    Parameters
    ----------
    n, n_groups
        Common tracks, and their groups.
    n_seeds
        Pairs of predictions that the scores are means over.
    first, second, difference
        Scores on the common tracks, and first minus second.
    low, high
        95 % interval of the difference.
    loss_bound, gain_bound
        The first, or the second, is worse by less than this with 95 %
        confidence (one-sided).
    p
        Two-sided, not corrected.
    test
        ``mcnemar`` (exact) where it applies, else ``permutation``.
    n_differ
        Tracks that the two treat differently: only one is right, or for other
        kinds of task their errors differ.
    smallest
        The smallest difference that such a pair would show with power 0.8.
    """

    metric: str
    n: int
    n_groups: int
    n_seeds: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    loss_bound: float
    gain_bound: float
    p: float
    test: str
    n_differ: int
    smallest: float

    def as_good(self, margin: float = MARGIN) -> bool | None:
        """Whether the first is worse by less than a margin; None if n cannot tell."""
        if self.n_groups < FEW_GROUPS or math.isnan(self.loss_bound):
            return None
        return self.loss_bound < margin

    def is_equivalent(self, margin: float = MARGIN) -> bool | None:
        """Whether neither is worse by as much as a margin; None if n cannot tell."""
        as_good = self.as_good(margin)
        return as_good and self.gain_bound < margin

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(without_nan(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Comparison:
        """Read back what :meth:`to_json` wrote."""
        fields: dict[str, Any] = {
            name: math.nan if item is None else item for name, item in value.items()
        }
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackDifference:
    """A track on which two cells differ; predictions are those of the first seed.

    Parameters
    ----------
    gain
        Error of the second minus error of the first: positive favours the first.
    """

    track_id: str
    truth: Label
    first: Label
    second: Label
    gain: float


def compare(
    first: Cell,
    second: Cell,
    *,
    metric: str = "",
    split: str = "test",
    seed: int = SEED,
    n_resamples: int = N_RESAMPLES,
    n_permutations: int = N_PERMUTATIONS,
) -> Comparison:
    """Compare two cells on their common tracks.

    Parameters
    ----------
    first, second
        Results of one configuration, with predictions; one a seed.
    metric
        The one that choices were made by if empty.
    split
        ``val`` where the comparison decides something.

    Raises
    ------
    StoreMismatchError
        If the two were scored against other labels or groups.
    TaskError
        If they have no track in common, or are of different tasks.
    """
    common = common_tracks(first, second, split=split)
    name = metric or first[0].metric
    if name not in common.metrics:
        raise TaskError(f"metric is {name!r}, expected one of {', '.join(common.metrics)}")
    both, n_groups = common.both(common.metrics[name]), common.n_groups
    here = np.hstack([np.ones((1, n_groups)), np.zeros((1, n_groups))])
    score_first, score_second = float(both(here)[0]), float(both(1 - here)[0])
    gains = common.gains()
    low = high = loss_bound = gain_bound = standard_error = math.nan
    if n_groups > 1:
        drawn = _drawn_differences(common, name, both, seed=seed, n_resamples=n_resamples)
        worth = effective_groups(common.number)
        bounds: Callable[..., tuple[float, float]] = percentile_interval
        lacking = 1.0
        if name not in MADE_UP:
            bounds = partial(expanded_percentiles, n_groups=worth)
            lacking = worth / (worth - 1)
        low, high = bounds(drawn)
        worst, gain_bound = bounds(drawn, tail=0.05)
        loss_bound = -worst
        defined = drawn[np.isfinite(drawn)]
        if len(defined):
            standard_error = float(defined.std()) * math.sqrt(lacking)
    is_exact = name == "accuracy" and n_groups == len(common.track_ids) and len(common.pairs) == 1
    if is_exact:
        p = mcnemar(int((gains > 0).sum()), int((gains < 0).sum()))
    else:
        p = permutation_test(both, n_groups, seed=seed, n_permutations=n_permutations)
    return Comparison(
        metric=name,
        n=len(common.track_ids),
        n_groups=n_groups,
        n_seeds=len(common.pairs),
        first=score_first,
        second=score_second,
        difference=score_first - score_second,
        low=low,
        high=high,
        loss_bound=float(loss_bound),
        gain_bound=float(gain_bound),
        p=p,
        test="mcnemar" if is_exact else "permutation",
        n_differ=int(np.count_nonzero(gains)),
        smallest=smallest_detectable(standard_error),
    )


def _drawn_differences(
    common: CommonTracks, name: str, both: Scorer, *, seed: int, n_resamples: int
) -> Array:
    """Differences in resamples of the groups, for accuracy beside two made-up groups."""
    n_groups = common.n_groups
    if name in MADE_UP:
        size = len(common.number) / n_groups
        rows = np.column_stack([common.gains(), np.ones(len(common.number))])
        rows = np.vstack([rows, [[size, size], [-size, size]]])
        number = np.concatenate([common.number, [n_groups, n_groups + 1]])
        n_groups += 2
        differences = score_sums(rows, number, n_groups, lambda sums: sums[:, 0] / sums[:, 1])
    else:

        def differences(copies: Array) -> Array:
            none = np.zeros_like(copies)
            return both(np.hstack([copies, none])) - both(np.hstack([none, copies]))

    return bootstrap_scores(differences, n_groups, seed=seed, n_resamples=n_resamples)


def track_differences(first: Cell, second: Cell) -> list[TrackDifference]:
    """List the common tracks on which two cells differ, the largest difference first."""
    common = common_tracks(first, second)
    gains = common.gains()
    left, right = (tracks_of(cell[0]) for cell in (first, second))
    found = []
    for place in np.argsort(-np.abs(gains), kind="stable"):
        if gains[place] == 0:
            break
        name = common.track_ids[place]
        found.append(
            TrackDifference(
                track_id=name,
                truth=left[name].truth,
                first=left[name].prediction,
                second=right[name].prediction,
                gain=float(gains[place]),
            )
        )
    return found


def score_of(
    cell: Cell, metric: str = "", *, seed: int = SEED, n_resamples: int = N_RESAMPLES
) -> Score:
    """Score a cell on its own test tracks, the mean over seeds with its interval over groups.

    Several seeds without predictions, as few-shot results are, have no interval
    together.
    """
    name = metric or cell[0].metric
    scores = [result.scores["test"][name] for result in cell]
    if len(cell) > 1 and not all(result.predictions for result in cell):
        value = float(np.mean([score.value for score in scores]))
        return Score(value=value, low=math.nan, high=math.nan)
    distinct = distinct_seeds(cell)
    if len(distinct) == 1:
        return scores[0]
    common = common_tracks(cell, cell)
    chosen = common.metrics[name]
    scorers = [
        chosen.scorer(common.truth, prediction, common.number, common.n_groups)
        for prediction, _ in common.pairs
    ]

    def scorer(copies: Array) -> Array:
        return np.asarray(np.mean([one(copies) for one in scorers], axis=0))

    value = float(scorer(np.ones((1, common.n_groups)))[0])
    low, high = chosen.interval(value, scorer, common.number, seed=seed, n_resamples=n_resamples)
    return Score(value=value, low=low, high=high)
