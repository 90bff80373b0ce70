"""Which cell to use, and which others are as good: one table of one task.

Conventions
-----------
The *reference* is the cell with the best validation score, so test decides
nothing; ties go to fewer features, then to the cell named first. Every other
cell is compared with it on test. Cells that are one thing by definition are one
row, and one comparison in Holm's correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

from tune_cache.errors import UsageError
from tune_cache.probes.compare import MARGIN, Comparison
from tune_cache.probes.metrics import Score
from tune_cache.probes.result import ProbeResult
from tune_cache.probes.statistics import holm

__all__ = [
    "Entry",
    "Verdict",
    "check_margin",
    "choose_reference",
    "judge",
    "smallest_difference",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row: a configuration, and all that is the same thing.

    Parameters
    ----------
    results
        One a seed, with predictions or without.
    segs, aggregations
        Segment lengths and aggregations that this row stands for.
    """

    results: tuple[ProbeResult, ...]
    segs: tuple[str, ...]
    aggregations: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The one that choices are made by."""
        return self.results[0].metric

    def validation(self) -> float:
        """Mean validation score over seeds."""
        return mean(result.scores["val"][self.metric].value for result in self.results)

    def seed_deviation(self) -> float:
        """Standard deviation of the test score over seeds; NaN of one seed."""
        values = [result.scores["test"][self.metric].value for result in self.results]
        return stdev(values) if len(values) > 1 else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a table says of one entry.

    Parameters
    ----------
    score
        On its own test tracks, the mean over seeds.
    comparison
        With the reference, entry minus reference; None for the reference, and
        where results keep no predictions.
    p_holm
        Corrected over the table.
    as_good
        As good as the reference up to the margin; None if n cannot tell.
    is_reference
        Whether it is what validation chose.
    """

    entry: Entry
    score: Score
    comparison: Comparison | None
    p_holm: float
    as_good: bool | None
    is_reference: bool


def choose_reference(entries: Sequence[Entry]) -> int:
    """Place of the entry with the best validation score.

    An entry whose validation score is undefined is chosen only if all are.
    """

    def order(place: int) -> tuple[bool, float, int, int]:
        value = entries[place].validation()
        n_features = entries[place].results[0].n_features
        return math.isnan(value), -value if math.isfinite(value) else 0.0, n_features, place

    return min(range(len(entries)), key=order)


def judge(
    entries: Sequence[Entry],
    scores: Sequence[Score],
    comparisons: Sequence[Comparison | None],
    reference: int,
    *,
    margin: float = MARGIN,
) -> list[Verdict]:
    """Correct the p-values of a table and apply the margin.

    Parameters
    ----------
    comparisons
        One an entry; None for the reference, and where there are no predictions.
    reference
        Its place.
    margin
        Largest loss that does not matter.
    """
    corrected = holm([math.nan if item is None else item.p for item in comparisons])
    return [
        Verdict(
            entry=entry,
            score=score,
            comparison=item,
            p_holm=p,
            as_good=(place == reference or None) if item is None else item.as_good(margin),
            is_reference=place == reference,
        )
        for place, (entry, score, item, p) in enumerate(
            zip(entries, scores, comparisons, corrected, strict=True)
        )
    ]


def check_margin(margin: float) -> None:
    """Refuse a margin that decides nothing.

    Raises
    ------
    UsageError
        If it is not a positive number.
    """
    if not 0 < margin < math.inf:
        raise UsageError(
            f"margin is {margin!r}, expected a positive number",
            hint="the largest loss that does not matter, as 0.02",
        )


def smallest_difference(verdicts: Sequence[Verdict]) -> float:
    """The smallest difference that a typical pair of the table would show; NaN without pairs."""
    known = [
        item.comparison.smallest
        for item in verdicts
        if item.comparison is not None and item.comparison.smallest > 0
    ]
    return median(known) if known else math.nan
