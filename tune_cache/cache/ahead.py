"""What stage one has still to do for a store, told before any of it is done.

Conventions
-----------
Lengths of tracks that were never decoded are those of headers, as in the plan;
whatever other stores hold is counted exactly. Seconds of audio are those inside
segments: an overlap counts as often as it is encoded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune_cache.cache.find import copy_sources
from tune_cache.cache.journal import read_unit
from tune_cache.cache.layout import Layout
from tune_cache.cache.plan import PlannedTrack, make_plan
from tune_cache.cache.shards import CRC_BYTES, SHARD_ROWS, shard_n_bytes
from tune_cache.cache.store import open_store
from tune_cache.errors import AudioError
from tune_cache.segments import cut
from tune_cache.specs import StoreSpec, collection_digest

__all__ = ["Ahead", "Work", "count_work", "look_ahead", "store_n_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Tracks and segments, counted by what becomes of them.

    Parameters
    ----------
    n_failing
        Tracks that cannot be read, or whose header says that they are too short.
    n_copied, n_done
        Tracks that another store has, and that the journal of an interrupted run has.
    n_encode
        Tracks that must be encoded.
    n_segments
        Of the finished store.
    n_encode_segments
        To be encoded.
    audio_seconds
        In segments to be encoded, without padding.
    input_seconds
        The same with padding: what the encoder is given.
    track_seconds
        Of whole tracks to be decoded.
    longest_samples, typical_samples
        The longest segment, and the one that half of the input is at most as long as.
    """

    n_failing: int = 0
    n_copied: int = 0
    n_done: int = 0
    n_encode: int = 0
    n_segments: int = 0
    n_encode_segments: int = 0
    audio_seconds: float = 0.0
    input_seconds: float = 0.0
    track_seconds: float = 0.0
    longest_samples: int = 0
    typical_samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A store that is there, or the work that it needs.

    Parameters
    ----------
    path
        Where it is, or will be.
    found
        Whether it is there: then it costs nothing.
    n_bytes
        Of its arrays; metadata and messages add some kilobytes.
    to_decode
        Ids of tracks that must be encoded.
    """

    spec: StoreSpec
    path: Path
    found: bool
    work: Work
    n_bytes: int
    to_decode: tuple[str, ...] = ()


def count_work(
    tracks: Sequence[PlannedTrack],
    spec: StoreSpec,
    *,
    rows_copied: Mapping[str, int],
    done: Collection[str] = (),
) -> Work:
    """Count segments by the tracks' expected lengths.

    Parameters
    ----------
    rows_copied
        Track id to its number of rows, for tracks that other stores have.
    done
        Ids of tracks that a journal has.
    """
    rate, pad = spec.segments.sample_rate_hz, spec.segments.tail == "pad"
    n_failing = n_done = n_encode = n_segments = 0
    track_seconds = 0.0
    lengths: list[int] = []
    for track in tracks:
        if not track.audio_sha256:
            n_failing += 1
            continue
        if track.track_id in rows_copied:
            n_segments += rows_copied[track.track_id]
            continue
        try:
            grid = cut(round(track.seconds * rate), spec.segments)
        except AudioError:
            grid = ()
        n_segments += len(grid)
        if track.track_id in done:
            n_done += 1
        elif grid:
            n_encode += 1
            track_seconds += track.seconds
            lengths += [segment.n_samples for segment in grid]
        else:
            n_failing += 1
    given = np.sort(np.array(lengths, np.int64))
    n_audio = int(given.sum())
    if pad:
        given = np.maximum(given, spec.segments.length_samples)
    n_given = int(given.sum())
    return Work(
        n_failing=n_failing,
        n_copied=len(rows_copied),
        n_done=n_done,
        n_encode=n_encode,
        n_segments=n_segments,
        n_encode_segments=len(lengths),
        audio_seconds=n_audio / rate,
        input_seconds=n_given / rate,
        track_seconds=track_seconds,
        longest_samples=int(given[-1]) if len(given) else 0,
        typical_samples=int(given[np.searchsorted(np.cumsum(given), n_given / 2)])
        if len(given)
        else 0,
    )


def look_ahead(
    tracks: Sequence[PlannedTrack], spec: StoreSpec, *, layout: Layout, dim: int
) -> Ahead:
    """Find what there is already: the store, rows elsewhere, the journal of an interrupted run.

    Raises
    ------
    StoreCorruptError
        If the store is there, but damaged: `tune extract` would stop at it as well.
    """
    collection = collection_digest((t.track_id, t.audio_sha256) for t in tracks)
    final = layout.store_path(spec, collection)
    ids = [track.track_id for track in tracks]
    if final.exists():
        store = open_store(final)
        work = Work(n_failing=len(store.failed), n_segments=store.n_segments)
        n_bytes = store_n_bytes(spec, dim=dim, n_segments=store.n_segments, track_ids=ids)
        return Ahead(spec=spec, path=final, found=True, work=work, n_bytes=n_bytes)
    copies = copy_sources(layout, spec, tracks, set())
    rows = {name: store.outcome_of(there, name).n_rows for name, (store, there) in copies.items()}
    done: set[str] = set()
    for index, unit in enumerate(make_plan(tracks)):
        wanted = [t for t in unit if t.audio_sha256 and t.track_id not in rows]
        found = read_unit(layout.work_path(final), index, spec) if wanted else None
        if found is not None and found.covers(wanted):
            done |= {track.track_id for track in wanted}
    work = count_work(tracks, spec, rows_copied=rows, done=done)
    return Ahead(
        spec=spec,
        path=final,
        found=False,
        work=work,
        n_bytes=store_n_bytes(spec, dim=dim, n_segments=work.n_segments, track_ids=ids),
        to_decode=tuple(
            t.track_id
            for t in tracks
            if t.audio_sha256 and t.track_id not in rows and t.track_id not in done
        ),
    )


def store_n_bytes(spec: StoreSpec, *, dim: int, n_segments: int, track_ids: Sequence[str]) -> int:
    """Add up the files that hold a store's arrays.

    Embeddings come in chunks of 256 rows, the last one filled up: a store of a
    few segments is larger than they are. What is not counted are the texts:
    metadata, listing, ledger, and messages of tracks.
    """
    full, rest = divmod(n_segments, SHARD_ROWS)
    n_layers = len(spec.layers)
    shards = full * shard_n_bytes(SHARD_ROWS, n_layers, dim, spec.dtype)
    shards += shard_n_bytes(rest, n_layers, dim, spec.dtype) if rest else 0
    n_tracks = len(track_ids)
    n_id_bytes = sum(len(name.encode("utf-8", "surrogatepass")) for name in track_ids)
    small = [4 * n_segments, 8 * n_segments, 4 * n_segments]  # track, start, length
    small += [n_id_bytes, 8 * (n_tracks + 1), 8 * (n_tracks + 1)]  # ids, of messages the offsets
    small += [8 * (n_tracks + 1)]  # rows of tracks
    small += [32 * n_tracks, 8 * n_tracks, 4 * n_tracks, n_tracks]  # hash, length, rate, status
    return len(spec.poolings) * shards + sum(n_bytes + CRC_BYTES for n_bytes in small if n_bytes)
