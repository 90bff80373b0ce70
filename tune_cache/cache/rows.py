"""The rows of a store in the making, in the order of its tracks, some at a time.

Conventions
-----------
A source of rows is called once a pooling and begins anew each time. Rows of one
track stand together; a track without rows is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.cache.journal import JournalUnit, TrackOutcome
from tune_cache.cache.shards import SHARD_ROWS
from tune_cache.cache.store import Store

__all__ = ["PoolingRows", "Rows", "rows_from_units_and_stores"]

COPY_ROWS = SHARD_ROWS  # read at a time from another store


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of one pooling and their place in their tracks."""

    values: npt.NDArray[Any]
    start_sample: npt.NDArray[np.int64]
    n_samples: npt.NDArray[np.int32]


PoolingRows = Callable[[str], Iterator[Rows]]


def rows_from_units_and_stores(
    outcomes: Sequence[TrackOutcome],
    *,
    unit_of: Mapping[str, int],
    copy_from: Mapping[str, tuple[Store, str]],
    load_unit: Callable[[int], JournalUnit],
) -> PoolingRows:
    """Take rows from the units of a journal and from other stores.

    Parameters
    ----------
    outcomes
        Every track, in the order of ids.
    unit_of
        Track id to the index of the unit that holds it, for tracks not copied.
    copy_from
        Track id to the store whose rows are copied, and the id it has there.
    load_unit
        Reads a unit again by index.
    """

    def source(outcome: TrackOutcome) -> tuple[str, int]:
        if outcome.track_id in copy_from:
            return str(copy_from[outcome.track_id][0].path), -1
        return "", unit_of[outcome.track_id]

    def rows(pooling: str) -> Iterator[Rows]:
        load = lru_cache(maxsize=1)(load_unit)
        tracks = [outcome for outcome in outcomes if outcome.n_rows]
        for (path, index), group in groupby(tracks, key=source):
            members = list(group)
            if path:
                store = copy_from[members[0].track_id][0]
                names = [copy_from[outcome.track_id][1] for outcome in members]
                longest = max(outcome.n_rows for outcome in members)
                yield from _copied(store, names, pooling, longest)
            else:
                yield _of_unit(load(index), [m.track_id for m in members], pooling)

    return rows


def _copied(store: Store, names: Sequence[str], pooling: str, longest: int) -> Iterator[Rows]:
    """Rows of tracks of another store, the longest of which has so many."""
    n_tracks = max(1, COPY_ROWS // longest)
    for start in range(0, len(names), n_tracks):
        ids = names[start : start + n_tracks]
        rows, _ = store.rows_of(ids)
        yield Rows(
            store.read(ids, pooling=pooling).values,
            store.segment_start[rows],
            store.segment_n_samples[rows],
        )


def _of_unit(unit: JournalUnit, track_ids: Sequence[str], pooling: str) -> Rows:
    """Rows of some tracks of a unit."""
    offsets = np.concatenate([[0], np.cumsum([o.n_rows for o in unit.outcomes])])
    place = {outcome.track_id: i for i, outcome in enumerate(unit.outcomes)}
    places = [place[name] for name in track_ids]
    rows: slice | npt.NDArray[np.int64] = slice(offsets[places[0]], offsets[places[-1] + 1])
    if places != list(range(places[0], places[-1] + 1)):  # else a view, not a copy
        rows = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in places])
    return Rows(unit.embeddings[pooling][rows], unit.start_sample[rows], unit.n_samples[rows])
