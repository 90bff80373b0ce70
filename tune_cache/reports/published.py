"""The published table of the TUNE study, to stand beside one's own.

Conventions
-----------
Frozen data, all rows and columns as published: one run on one machine, no
intervals, no validation scores. Memory is peak VRAM in GB as the study counts
them; what its seconds span is not stated beyond the table. The study's released
code feeds (batch, 1, time) to encoders that read axis 1 as time, so segmentation
never took effect in it: no row may be shown without :data:`LABELS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["HARDWARE", "LABELS", "PUBLISHED", "SEED", "PublishedRow", "published_rows"]

HARDWARE = "RTX 2080 Ti"
SEED = 1234
LABELS = (
    "published; segmentation not effective in the released code",
    "published on another machine",
)
ONE_SEGMENT = "one-segment: every track is shorter than 60 s"
SAME_AS_MEAN = "equals mean to three digits: a concat over time is averaged later"
STUDY_NAMES = {"EMO": "EMO", "GTZAN": "GTZAN", "GTZANGenre": "GTZAN"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One row of the published table.

    Parameters
    ----------
    dataset
        As the study calls it: ``EMO`` or ``GTZAN``.
    aggregation
        As published: ``full track``, ``concat``, ``mean`` or ``transformer``.
    seg
        Segment length as our tables write it: ``10``, ``30``, ``60`` or ``full``.
    vram_gb, seconds
        Peak memory of the GPU, and time.
    scores
        By our names of metrics: ``accuracy``, or ``r2_valence`` and ``r2_arousal``.
    flags
        What makes the row less than it seems.
    """

    dataset: str
    aggregation: str
    seg: str
    vram_gb: float
    seconds: float
    scores: Mapping[str, float]
    flags: tuple[str, ...] = ()

    def mean_score(self) -> float:
        """Mean over the published metrics: accuracy, or what MARBLE calls R² of EMO."""
        return sum(self.scores.values()) / len(self.scores)


def _emo(
    aggregation: str, seg: str, vram_gb: float, seconds: float, valence: float, arousal: float
) -> PublishedRow:
    return _row("EMO", aggregation, seg, vram_gb, seconds, r2_valence=valence, r2_arousal=arousal)


def _gtzan(
    aggregation: str, seg: str, vram_gb: float, seconds: float, accuracy: float
) -> PublishedRow:
    return _row("GTZAN", aggregation, seg, vram_gb, seconds, accuracy=accuracy)


def _row(
    dataset: str, aggregation: str, seg: str, vram_gb: float, seconds: float, **scores: float
) -> PublishedRow:
    flags = (ONE_SEGMENT,) if seg == "60" else ()
    if (dataset, aggregation) == ("EMO", "concat"):
        flags = (*flags, SAME_AS_MEAN)
    return PublishedRow(
        dataset=dataset,
        aggregation=aggregation,
        seg=seg,
        vram_gb=vram_gb,
        seconds=seconds,
        scores=scores,
        flags=flags,
    )


PUBLISHED = (
    _emo("full track", "full", 6.816, 45.845, 0.574, 0.737),
    _emo("concat", "10", 9.730, 136.986, 0.547, 0.760),
    _emo("mean", "10", 3.552, 46.210, 0.547, 0.760),
    _emo("transformer", "10", 4.095, 60.886, 0.492, 0.707),
    _emo("mean", "30", 4.124, 62.352, 0.542, 0.756),
    _emo("transformer", "60", 4.132, 45.707, 0.506, 0.726),
    _gtzan("full track", "full", 6.546, 60.678, 0.845),
    _gtzan("concat", "10", 9.361, 181.427, 0.828),
    _gtzan("mean", "10", 3.404, 61.285, 0.830),
    _gtzan("transformer", "10", 3.932, 80.702, 0.795),
    _gtzan("mean", "30", 3.928, 82.522, 0.835),
    _gtzan("transformer", "60", 3.968, 55.980, 0.805),
)


def published_rows(dataset: str) -> tuple[PublishedRow, ...]:
    """The rows of one dataset, by our name of it or the study's; none of any other.

    Examples
    --------
    >>> [row.seg for row in published_rows("GTZANGenre")]
    ['full', '10', '10', '10', '30', '60']
    """
    name = STUDY_NAMES.get(dataset)
    return tuple(row for row in PUBLISHED if row.dataset == name)
