"""Vectors that were not made here, as a store that says so.

Conventions
-----------
Nothing is known of the function that made them, so the vectors themselves are
the encoder's identity: its name begins with ``import:``, its weights' hash is
that of all values. No extract ever has this identity. The grid is what the
importer says, in milliseconds; nobody knows the length of the audio, so every
segment counts as full, a whole track as one second.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tune_cache.cache.assemble import Assembly
from tune_cache.cache.exchange.header import Array
from tune_cache.cache.exchange.vectors import VectorFile, vector_blocks
from tune_cache.cache.journal import TrackOutcome, check_rows
from tune_cache.cache.ledger import machine_facts
from tune_cache.cache.rows import Rows
from tune_cache.errors import StoreError, StoreMismatchError, first_few
from tune_cache.segments import covered_samples, segment_spec
from tune_cache.specs import (
    IMPORTED,
    EncoderSpec,
    StoreSpec,
    canonical_json,
    collection_digest,
    sha256_text,
)

__all__ = ["ForeignTrack", "foreign_assembly"]

GRID_HZ = 1000
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignTrack:
    """One track and the file that has its vectors.

    Parameters
    ----------
    audio_sha256
        Of its audio file; empty where that is not at hand.
    file
        None where there are no vectors.
    """

    track_id: str
    audio_sha256: str = ""
    file: VectorFile | None = None


def foreign_assembly(
    tracks: Sequence[ForeignTrack],
    *,
    name: str,
    seconds: float | Literal["full"],
    hop_seconds: float | None = None,
    dtype: str | None = None,
    dataset: str = "",
) -> Assembly:
    """Read all vectors once, to check and hash them, and prepare to store them.

    Parameters
    ----------
    tracks
        In any order; those without a file, or with one of no rows, are failed tracks.
    name
        Of the encoder, without ``import:``.
    seconds, hop_seconds
        The grid that the vectors were made on.
    dtype
        To be stored; ``f2`` if all files are of 16 bits, else ``f4``.
    dataset
        Name to remember in the store.

    Raises
    ------
    StoreMismatchError
        If files differ in layers or width, or a whole track has several segments.
    StoreError
        If a value is not finite or does not fit the stored dtype, naming the file.
    """
    segments = segment_spec(
        seconds,
        sample_rate_hz=GRID_HZ,
        min_samples=1,
        hop_seconds=hop_seconds,
        min_tail_seconds=None if seconds == "full" else 0.0,
    )
    tracks = sorted(tracks, key=lambda track: track.track_id)
    files = [track.file for track in tracks if track.file is not None]
    shape = _common_shape(files, seconds)
    kept = dtype or ("f2" if all(file.dtype == "f2" for file in files) else "f4")
    digests = {file.name: _digest(file, kept) for file in files}
    spec = StoreSpec(
        encoder=EncoderSpec(
            name=IMPORTED + name,
            weights_sha256=sha256_text(
                canonical_json([[t.track_id, digests[t.file.name]] for t in tracks if t.file])
            ),
            config_sha256=sha256_text(canonical_json({"imported_vectors": 1})),
        ),
        segments=segments,
        layers=tuple(range(shape[0])),
        dtype=kept,
        resampler=UNKNOWN,
        decoder=UNKNOWN,
    )
    length = segments.length_samples or GRID_HZ
    hop = segments.hop_samples

    def grid(first: int, n_rows: int) -> tuple[Array, Array]:
        starts = np.arange(first, first + n_rows, dtype=np.int64) * hop
        return starts, np.full(n_rows, length, np.int32)

    def rows(pooling: str) -> Iterator[Rows]:
        del pooling  # there is one
        for file in files:
            digest, row = _new_digest(file), 0
            for block in _stored_blocks(file, kept):
                digest.update(block.reshape(-1).view(np.uint8).data)
                yield Rows(block, *grid(row, len(block)))
                row += len(block)
            if digest.hexdigest() != digests[file.name]:
                raise StoreError(
                    f"file {file.name!r} changed while it was being imported",
                    hint="run the same command again",
                )

    outcomes = [_outcome(track, grid) for track in tracks]
    return Assembly(
        spec=spec,
        dim=shape[1],
        collection=collection_digest((o.track_id, o.audio_sha256) for o in outcomes),
        outcomes=outcomes,
        facts={
            "frame_rate_hz": 0.0,
            "datasets": [dataset] if dataset else [],
            "license_note": "",
            "encoder_note": "imported vectors: how they were made is the importer's word",
            "provenance": machine_facts(),
        },
        ledger={},
        rows=rows,
    )


def _common_shape(files: Sequence[VectorFile], seconds: float | Literal["full"]) -> tuple[int, int]:
    """Number of layers and width that all files agree in."""
    if not any(math.prod(file.shape) for file in files):
        raise StoreMismatchError(f"none of {len(files)} files has a vector")
    shapes: dict[tuple[int, int], list[str]] = {}
    for file in files:
        shapes.setdefault(file.shape[1:], []).append(file.name)
    if len(shapes) > 1:
        (first, several), (second, others) = list(shapes.items())[:2]
        raise StoreMismatchError(
            f"files differ in (n_layers, dim): {several[0]!r} has {first}, "
            f"{others[0]!r} has {second}",
            hint="import one encoder's vectors at a time",
        )
    long = [file.name for file in files if seconds == "full" and file.shape[0] > 1]
    if long:
        have = "has" if len(long) == 1 else "have"
        raise StoreMismatchError(
            f"--seg full means one segment a track, but {first_few(long)} {have} more",
            hint="say how long a segment is, as --seg 10",
        )
    return next(iter(shapes))


def _new_digest(file: VectorFile) -> hashlib._Hash:
    return hashlib.sha256(canonical_json(list(file.shape)).encode("ascii"))


def _digest(file: VectorFile, dtype: str) -> str:
    """Hash the values as they will be stored, so that equal vectors are one identity."""
    digest = _new_digest(file)
    for block in _stored_blocks(file, dtype):
        digest.update(block.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _stored_blocks(file: VectorFile, dtype: str) -> Iterator[Array]:
    """Rows in the stored dtype; a value that does not fit names its file and row."""
    row = 0
    for block in vector_blocks(file):
        try:
            yield np.ascontiguousarray(check_rows("imported", block, dtype))
        except ValueError as error:
            with np.errstate(over="ignore"):
                bad = np.flatnonzero(~np.isfinite(block.astype("<" + dtype)).all(axis=(1, 2)))
            what = "beyond float32" if dtype == "f4" and np.isfinite(block).all() else str(error)
            raise StoreError(f"file {file.name!r}, segment {row + bad[0]}: {what}") from error
        row += len(block)


def _outcome(track: ForeignTrack, grid: Callable[[int, int], tuple[Array, Array]]) -> TrackOutcome:
    """What becomes of a track: rows on the grid, or a reason why there are none."""
    failed = TrackOutcome(
        track_id=track.track_id,
        audio_sha256=track.audio_sha256,
        status="no-vectors",
        message="no file was imported for this track",
    )
    if track.file is None:
        return failed
    n_rows = track.file.shape[0]
    if n_rows == 0:
        return replace(failed, message=f"imported file {track.file.name!r} has no segments")
    starts, counts = grid(0, n_rows)
    return replace(
        failed,
        status="ok",
        message="",
        n_samples=int(starts[-1] + counts[-1]),
        n_rows=n_rows,
        covered_samples=covered_samples(starts, counts),
    )
