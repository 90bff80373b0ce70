"""The units of unfinished stores: claim, decode, encode, commit.

Conventions
-----------
Units are claimed and decoded one ahead of the one being encoded, so two units
of audio are held at most, 115 MB at 24 kHz; a track longer than a unit lies in a
file without a name in the first journal's folder. A unit that a rival holds is
left to it and looked at again at the end. What a unit comes to depends on
nothing that happens here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tune_cache.audio import DecodedAudio, DecodePool
from tune_cache.cache.batching import longest_segment
from tune_cache.cache.encode import Batcher, encode_unit
from tune_cache.cache.inventory import stamp_of
from tune_cache.cache.journal import read_unit, write_unit
from tune_cache.cache.ledger import Meter
from tune_cache.cache.locks import Claims
from tune_cache.cache.plan import PlannedTrack, units_of_part
from tune_cache.cache.store import Store
from tune_cache.encoders.base import Encoder, sha256_file
from tune_cache.errors import AudioError, EncoderError
from tune_cache.specs import StoreSpec

__all__ = ["Circumstances", "Job", "OpenDecoders", "Progress", "Run", "encode_all", "open_pool"]

Unit = tuple[PlannedTrack, ...]


class Decoders(Protocol):
    """Whatever decodes files beside the encoder; :class:`DecodePool` by default."""

    def submit(self, track_id: str, path: Path) -> Future[DecodedAudio]:
        """Begin to decode; the result or an AudioError comes later."""
        ...


# number of workers, what to decode for, folder for tracks too long for memory
OpenDecoders = Callable[[int, StoreSpec, Path], contextlib.AbstractContextManager[Decoders]]


def open_pool(
    n_workers: int, spec: StoreSpec, spool: Path
) -> contextlib.AbstractContextManager[Decoders]:
    """Start the decoders that a user gets."""
    return DecodePool(
        n_workers,
        sample_rate_hz=spec.segments.sample_rate_hz,
        channels=spec.channels,
        slices=spec.segments.slices,
        spool=spool,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of stage one, for whoever draws a bar.

    Parameters
    ----------
    stage
        ``encode`` (seconds of audio) or ``assemble`` (stores).
    done, total
        In the unit of the stage.
    """

    stage: str
    done: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What decides speed and memory, never a vector.

    Parameters
    ----------
    batch_size
        At most so many segments together; 0 leaves it to length and memory.
    workers
        Processes that decode; 0 takes one a core.
    part
        ``I/N``: only this share of the units.
    dataset
        Name to remember in the store.
    """

    batch_size: int = 0
    workers: int = 0
    part: str | None = None
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """How this run does its work."""

    load: Callable[[], Encoder]
    open_decoders: OpenDecoders
    options: Circumstances
    report: Callable[[Progress], None]


@dataclass(slots=True, kw_only=True)
class Job:
    """One store in the making.

    Attributes
    ----------
    owed_load_seconds, owed_write_seconds
        Spent by this run for this store and in no unit yet.
    """

    spec: StoreSpec
    final: Path
    work: Path
    claims: Claims
    copies: dict[str, tuple[Store, str]]
    done: set[int] = field(default_factory=set)
    n_encoded: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    owed_load_seconds: float = 0.0
    owed_write_seconds: float = 0.0

    def needs(self, unit: Unit) -> Unit:
        """Tracks of a unit that must be encoded: readable, and nowhere to copy from."""
        return tuple(t for t in unit if t.audio_sha256 and t.track_id not in self.copies)

    def is_done(self, index: int, unit: Unit) -> bool:
        if index in self.done:
            return True
        wanted = self.needs(unit)
        if wanted:
            found = read_unit(self.work, index, self.spec)
            if found is None or not found.covers(wanted):
                # a rival that published has removed its journal, which is ours as well
                return self.final.exists()
        self.done.add(index)
        return True


def encode_all(plan: Sequence[Unit], jobs: Sequence[Job], run: Run) -> None:
    """Encode every unit of this share that no journal holds yet."""
    share = units_of_part(len(plan), run.options.part)
    pending = [k for k in share if not all(job.is_done(k, plan[k]) for job in jobs)]
    if not pending:
        return
    seconds = {k: sum(track.seconds for track in plan[k]) for k in pending}
    total = sum(seconds.values())
    run.report(Progress(stage="encode", done=0.0, total=total))
    began = time.perf_counter()
    encoder = run.load()
    if any(encoder.spec() != job.spec.encoder for job in jobs):
        raise EncoderError(
            f"encoder {encoder.name!r} is not the one that was described: its weights changed",
            hint="run the same command again",
        )
    at_work = [job for job in jobs if not all(job.is_done(k, plan[k]) for k in pending)]
    for job in at_work:
        job.owed_load_seconds = (time.perf_counter() - began) / len(at_work)
    batcher = Batcher(encoder, run.options.batch_size)
    for job in at_work:  # a budget that is too small is refused before anything is decoded
        wanted = [track.seconds for k in pending for track in job.needs(plan[k])]
        batcher.size_for(longest_segment(wanted, job.spec.segments))
    done = 0.0
    n_workers = run.options.workers or os.cpu_count() or 1
    with run.open_decoders(n_workers, jobs[0].spec, jobs[0].work) as pool:
        while pending:
            held_elsewhere: list[int] = []
            for k, mine, decoded in _decoded_units(pending, plan, jobs, pool):
                if mine:
                    _encode_one(k, plan[k], mine, decoded, batcher, len(at_work))
                    decoded.tracks.clear()  # three units of audio would be held otherwise
                if not all(job.is_done(k, plan[k]) for job in jobs):
                    held_elsewhere.append(k)
                    continue
                done += seconds[k]
                run.report(Progress(stage="encode", done=done, total=total))
            if held_elsewhere:  # wait for one rival, then look again at all
                for job in jobs:
                    job.claims.take(held_elsewhere[0], wait=True)
                    job.claims.drop(held_elsewhere[0])
            pending = [
                k for k in held_elsewhere if not all(job.is_done(k, plan[k]) for job in jobs)
            ]


Waiting = tuple[int, list[Job], Unit, list["Future[DecodedAudio]"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    """A unit's tracks by id, and what having them took."""

    tracks: dict[str, DecodedAudio | AudioError] = field(default_factory=dict)
    waited_seconds: float = 0.0

    def cost(self, n_jobs: int) -> dict[str, Any]:
        """Figures for the ledger, an equal share for each job."""
        done = [track for track in self.tracks.values() if isinstance(track, DecodedAudio)]
        return {
            "wait_seconds": self.waited_seconds / n_jobs,
            "decode_seconds": sum(track.seconds for track in done) / n_jobs,
            "peak_decoder_rss_bytes": max((track.peak_rss_bytes for track in done), default=0),
        }


def _decoded_units(
    pending: Sequence[int], plan: Sequence[Unit], jobs: Sequence[Job], pool: Decoders
) -> Iterator[tuple[int, list[Job], _Decoded]]:
    """Claim units one ahead and decode them; an empty list of jobs says that a rival has it."""
    ahead: deque[Waiting] = deque()

    def result() -> tuple[int, list[Job], _Decoded]:
        k, mine, unit, futures = ahead.popleft()
        began = time.perf_counter()
        tracks = {t.track_id: _result(f, t) for t, f in zip(unit, futures, strict=True)}
        return k, mine, _Decoded(tracks=tracks, waited_seconds=time.perf_counter() - began)

    for k in pending:
        mine = [job for job in jobs if not job.is_done(k, plan[k]) and job.claims.take(k)]
        for job in list(mine):
            if job.is_done(k, plan[k]):  # a rival finished it between the look and the claim
                job.claims.drop(k)
                mine.remove(job)
        if not mine:
            yield k, [], _Decoded()
            continue
        needed = {t.track_id for job in mine for t in job.needs(plan[k])}
        unit = tuple(t for t in plan[k] if t.track_id in needed)
        ahead.append((k, mine, unit, [pool.submit(t.track_id, t.path) for t in unit]))
        if len(ahead) > 1:
            yield result()
    while ahead:
        yield result()


def _result(future: Future[DecodedAudio], track: PlannedTrack) -> DecodedAudio | AudioError:
    """Wait for a decode; a file that changed since it was hashed is an error of its own."""
    try:
        decoded = future.result()
    except AudioError as error:
        return error
    moved = track.stamp and stamp_of(track.path) != track.stamp
    if moved and _sha256(track.path) != track.audio_sha256:  # a chmod changes the stamp as well
        return AudioError(
            "file changed while it was being read", reason="changed", hint="run again"
        )
    return decoded


def _sha256(path: Path) -> str:
    """Of the file as it is now, empty where it cannot be read."""
    try:
        return sha256_file(path)
    except OSError:
        return ""


def _encode_one(
    k: int,
    unit: Unit,
    jobs: Sequence[Job],
    decoded: _Decoded,
    batcher: Batcher,
    n_lengths: int,
) -> None:
    """Encode one unit for every job that claimed it, and commit it."""
    meter = Meter(batcher.encoder)
    for job in jobs:
        wanted = job.needs(unit)
        meter.begin()
        tracks = [decoded.tracks[track.track_id] for track in wanted]
        result = encode_unit(wanted, tracks, job.spec, batcher)
        cost = dataclasses.replace(
            result.ledger,
            **decoded.cost(len(jobs)),
            **meter.read(),
            load_seconds=job.owed_load_seconds,
            write_seconds=job.owed_write_seconds,
            n_lengths=n_lengths,
        )
        began = time.perf_counter()
        write_unit(job.work, k, job.spec, dataclasses.replace(result, ledger=cost))
        job.owed_load_seconds, job.owed_write_seconds = 0.0, time.perf_counter() - began
        job.done.add(k)
        job.n_encoded += sum(outcome.status == "ok" for outcome in result.outcomes)
        job.failed |= {o.track_id: o.message for o in result.outcomes if o.status != "ok"}
        job.claims.drop(k)
