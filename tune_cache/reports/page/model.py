"""What a page is made of: results that were judged, stores, maps, and nothing to be looked up.

Conventions
-----------
Plain frozen values. Whoever fills them reads files; whoever draws them does not.
Memory of the GPU, of the encoding process and of decoders keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_cache.probes.verdicts import Verdict
from tune_cache.reports.results import SavedRun

__all__ = ["MapTrack", "PageContent", "StoreFacts", "TaskResults", "TrackMap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResults:
    """One task's cells, each compared with the one that validation chose.

    Parameters
    ----------
    verdicts, runs
        One a cell; runs are one a seed. Those of the reference have predictions.
    few_shot
        Runs that keep no predictions and so are compared with nothing.
    margin
        Largest loss that does not matter.
    notes
        What could not be compared, and why.
    """

    dataset: str
    task: str
    verdicts: tuple[Verdict, ...]
    runs: tuple[tuple[SavedRun, ...], ...]
    few_shot: tuple[SavedRun, ...] = ()
    margin: float
    notes: tuple[str, ...] = ()

    @property
    def reference(self) -> int:
        """Place of the cell that validation chose."""
        return next(place for place, item in enumerate(self.verdicts) if item.is_reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """A store that results came from.

    Parameters
    ----------
    n_bytes
        Of its files; None if it is gone.
    seconds
        Decoded length of each track.
    n_segments_by_track
        Of the tracks that did not fail.
    failed
        Track id → what went wrong.
    ledger
        What stage one cost.
    """

    name: str
    encoder: str
    note: str
    seg: str
    dataset: str
    content_digest: str
    spec_key: str
    collection_digest: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    n_bytes: int | None = None
    n_tracks: int | None = None
    n_segments: int | None = None
    coverage: float | None = None
    seconds: tuple[float, ...] = ()
    n_segments_by_track: tuple[int, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTrack:
    """One dot of a map.

    Parameters
    ----------
    truth, prediction
        In words; empty where there is none.
    is_right
        Of a class; None where that is no question.
    error
        Of numbers or tags, as the comparisons count it; None without a prediction.
    value
        What a regression task is coloured by: its first target.
    neighbours
        Places of the nearest tracks, and their cosine.
    weights
        Of attention over its segments, in their order; empty without attention.
    """

    track_id: str
    split: str
    truth: str = ""
    prediction: str = ""
    is_right: bool | None = None
    error: float | None = None
    value: float | None = None
    n_segments: int = 0
    seconds: float = 0.0
    neighbours: tuple[tuple[int, float], ...] = ()
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackMap:
    """Where tracks lie among each other.

    Parameters
    ----------
    caption
        Which vectors these are.
    coloured_by
        What a regression task's colours are of.
    weights_from
        What attention is from, in words.
    projections
        Name → x and y of each track; the share of variance that two axes keep is in
        ``kept``, where a projection has such a thing.
    """

    dataset: str
    task: str
    kind: str
    caption: str
    tracks: tuple[MapTrack, ...]
    projections: Mapping[str, tuple[tuple[float, float], ...]]
    kept: Mapping[str, float] = field(default_factory=dict)
    coloured_by: str = ""
    weights_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """Everything on a page.

    Parameters
    ----------
    dataset
        None for those of all datasets.
    created
        When the page was made.
    command
        That makes this page again.
    given
        By dataset: how the command line is told of it, where not by its name.
    splits
        By dataset: split → number of tracks.
    leaks
        By dataset and task: what the splits should have kept together.
    missing
        What the page lacks, and why.
    """

    dataset: str | None
    created: str
    version: str
    command: str
    tasks: tuple[TaskResults, ...] = ()
    stores: tuple[StoreFacts, ...] = ()
    maps: tuple[TrackMap, ...] = ()
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    leaks: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
