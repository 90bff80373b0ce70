"""One unit: decoded tracks → segments → batches → rows, and the fate of each track.

Conventions
-----------
Rows stand in the order of tracks, then of segments. Segments of one length are
batched across the tracks of a unit, so nothing is padded but what
``--tail pad`` asks for. A track that fails has a reason and no rows. Segments
are read from their track as their batch comes up; ``full`` needs the whole
track in memory, 346 MB an hour at 24 kHz, whatever the encoder needs on top.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.audio import DecodedAudio, SpooledSamples
from tune_cache.cache.batching import batch_size_for
from tune_cache.cache.journal import JournalUnit, TrackOutcome, UnitLedger, check_rows
from tune_cache.cache.plan import PlannedTrack
from tune_cache.devices import first_line, is_out_of_memory, release_cached_memory
from tune_cache.encoders.base import Encoder
from tune_cache.errors import AudioError, EncoderError
from tune_cache.segments import Segment, coverage_samples, cut, take
from tune_cache.specs import StoreSpec

__all__ = ["Batcher", "encode_unit"]


@dataclass(slots=True)
class Batcher:
    """Runs an encoder on lists of equally long waveforms, halving batches that do not fit.

    Parameters
    ----------
    encoder
        What to run.
    batch_size
        Items at a time, at most; 0 leaves it to :mod:`tune_cache.cache.batching`.

    Attributes
    ----------
    n_backoffs
        Batches that did not fit and were halved; the peaks of a GPU count from the last
        of them, for what ran.
    seconds, first_seconds
        Spent in ``embed``, which returns when its numbers are on the host: by all
        batches, and by the first one, warm-up and work together.
    """

    encoder: Encoder
    batch_size: int = 0
    n_backoffs: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
    _limit_samples: int = 0  # found by running out of memory; 0 while nothing did
    _sizes: dict[int, int] = field(default_factory=dict)  # free memory is looked at once a length

    def size_for(self, n_samples: int) -> int:
        """Items of ``n_samples`` samples in one batch.

        Raises
        ------
        EncoderError
            If one alone needs more memory than allowed.
        """
        if n_samples not in self._sizes:
            self._sizes[n_samples] = batch_size_for(self.encoder, n_samples, self.batch_size)
        size = self._sizes[n_samples]
        if self._limit_samples:
            size = min(size, self._limit_samples // n_samples)
        return max(1, size)

    def run(self, waveforms: Sequence[npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[Any]]:
        """Embed waveforms of one length, in order.

        Raises
        ------
        EncoderError
            If even one item does not fit into memory.
        """
        parts: list[dict[str, npt.NDArray[Any]]] = []
        start = 0
        while start < len(waveforms):
            n_samples = len(waveforms[0])
            batch = _stacked(waveforms[start : start + self.size_for(n_samples)])
            failed = False
            began = time.perf_counter()
            try:
                parts.append(self.encoder.embed(batch))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise EncoderError(
                        f"a segment of {n_samples / self.encoder.sample_rate:.1f} s "
                        f"does not fit into memory: {first_line(error)}",
                        hint="use a shorter --seg, --max-memory, or --device cpu",
                    ) from error
                self._limit_samples = len(batch) // 2 * n_samples
                self.n_backoffs += 1
                failed = True
            finally:
                self.seconds += time.perf_counter() - began
            if failed:  # only now are the frames of the error gone, and their tensors with them
                release_cached_memory(getattr(self.encoder, "device", None))
                continue
            self.first_seconds = self.first_seconds or self.seconds
            start += len(batch)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _stacked(waveforms: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Make a batch of its own; a lone array that nobody shares is not copied."""
    if len(waveforms) == 1 and waveforms[0].base is None:
        return waveforms[0][None]
    return np.stack(waveforms)


def encode_unit(
    tracks: Sequence[PlannedTrack],
    decoded: Sequence[DecodedAudio | AudioError],
    spec: StoreSpec,
    batcher: Batcher,
) -> JournalUnit:
    """Turn the decoded tracks of a unit into checked rows.

    Parameters
    ----------
    tracks, decoded
        Aligned; an error stands for a track that could not be decoded.
    spec
        How to cut, what to keep.
    batcher
        Around the encoder.
    """
    grids, failures = _cut_all(tracks, decoded, spec)
    n_rows = [len(grid) for grid in grids]
    offsets = np.concatenate([[0], np.cumsum(n_rows)]).astype(np.int64)
    shape = (int(offsets[-1]), len(spec.layers), batcher.encoder.dim)
    rows = {name: np.empty(shape, np.float32) for name in spec.poolings}
    n_backoffs, seconds, first = batcher.n_backoffs, batcher.seconds, batcher.first_seconds
    n_fallbacks = getattr(batcher.encoder, "n_recomputed", 0)  # of fp16, in fp32
    by_length: dict[int, list[tuple[int, int, Segment]]] = {}
    for track, grid in enumerate(grids):
        for position, segment in enumerate(grid):
            length = spec.segments.length_samples if spec.segments.tail == "pad" else 0
            key = length or segment.n_samples
            by_length.setdefault(key, []).append((int(offsets[track]) + position, track, segment))
    for length, entries in by_length.items():
        size = batcher.size_for(length)
        for start in range(0, len(entries), size):
            batch = entries[start : start + size]
            waveforms = [take(_samples(decoded[t]), s, spec.segments) for _, t, s in batch]
            embedded = batcher.run(waveforms)
            places = [row for row, _, _ in batch]
            for name in spec.poolings:
                found = embedded[name].shape
                if found != (len(batch), *shape[1:]):
                    raise EncoderError(
                        f"encoder {batcher.encoder.name!r} gave {name} embeddings of shape "
                        f"{found}, expected {(len(batch), *shape[1:])}",
                        hint="this is a defect of the encoder: see docs/adding-an-encoder.md",
                    )
                rows[name][places] = embedded[name]
    return _checked_unit(
        tracks,
        decoded,
        spec,
        grids,
        failures,
        rows,
        UnitLedger(
            encode_seconds=batcher.seconds - seconds,
            first_batch_seconds=batcher.first_seconds - first,
            audio_seconds=sum(segment.n_samples for grid in grids for segment in grid)
            / spec.segments.sample_rate_hz,
            n_segments=shape[0],
            batch_size=max((batcher.size_for(length) for length in by_length), default=0),
            n_backoffs=batcher.n_backoffs - n_backoffs,
            n_fallbacks=getattr(batcher.encoder, "n_recomputed", 0) - n_fallbacks,
        ),
    )


def _samples(decoded: DecodedAudio | AudioError) -> npt.NDArray[np.float32] | SpooledSamples:
    if isinstance(decoded, AudioError):
        raise decoded
    return decoded.samples


def _cut_all(
    tracks: Sequence[PlannedTrack],
    decoded: Sequence[DecodedAudio | AudioError],
    spec: StoreSpec,
) -> tuple[list[tuple[Segment, ...]], dict[int, AudioError]]:
    """Cut what was decoded; index of each failed track to its error."""
    grids: list[tuple[Segment, ...]] = []
    failures: dict[int, AudioError] = {}
    for index, (_, audio) in enumerate(zip(tracks, decoded, strict=True)):
        grid: tuple[Segment, ...] = ()
        try:
            grid = cut(len(_samples(audio)), spec.segments)
        except AudioError as error:
            failures[index] = error
        grids.append(grid)
    return grids, failures


def _checked_unit(
    tracks: Sequence[PlannedTrack],
    decoded: Sequence[DecodedAudio | AudioError],
    spec: StoreSpec,
    grids: Sequence[tuple[Segment, ...]],
    failures: dict[int, AudioError],
    rows: dict[str, npt.NDArray[np.float32]],
    ledger: UnitLedger,
) -> JournalUnit:
    """Convert rows to the stored dtype; a track whose rows do not fit fails."""
    kept: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in spec.poolings}
    starts: list[int] = []
    lengths: list[int] = []
    outcomes: list[TrackOutcome] = []
    row = 0
    for index, (track, audio, grid) in enumerate(zip(tracks, decoded, grids, strict=True)):
        failure = failures.get(index)
        stored: dict[str, npt.NDArray[Any]] = {}
        if failure is None:
            try:
                for name in spec.poolings:
                    stored[name] = check_rows(name, rows[name][row : row + len(grid)], spec.dtype)
            except ValueError as error:
                failure = AudioError(str(error), reason="bad-embedding")
        row += len(grid)
        if failure is not None or isinstance(audio, AudioError):
            failure = failure or AudioError("not decoded")
            outcomes.append(
                TrackOutcome(
                    track_id=track.track_id,
                    audio_sha256=track.audio_sha256,
                    status=failure.reason,
                    message=str(failure),
                )
            )
            continue
        for name in spec.poolings:
            kept[name].append(stored[name])
        starts += [segment.start_sample for segment in grid]
        lengths += [segment.n_samples for segment in grid]
        outcomes.append(
            TrackOutcome(
                track_id=track.track_id,
                audio_sha256=track.audio_sha256,
                status="ok",
                message="; ".join(audio.facts.notes),
                n_samples=len(audio.samples),
                sample_rate_hz=audio.facts.sample_rate_hz,
                n_rows=len(grid),
                covered_samples=coverage_samples(grid),
            )
        )
    empty = np.empty((0, len(spec.layers), rows[spec.poolings[0]].shape[2]), "<" + spec.dtype)
    return JournalUnit(
        outcomes=tuple(outcomes),
        embeddings={name: np.concatenate([empty, *parts]) for name, parts in kept.items()},
        start_sample=np.array(starts, np.int64),
        n_samples=np.array(lengths, np.int32),
        ledger=ledger,
    )
