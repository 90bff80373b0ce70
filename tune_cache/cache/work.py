"""The units of unfinished stores: claim, decode, encode, commit.

Conventions
-----------
Units are claimed and decoded one ahead of the one being encoded. A unit that a
rival holds is left to it and looked at again at the end. What a unit comes to
depends on nothing that happens here.
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
from typing import Protocol

from tune_cache.audio import DecodedAudio, DecodePool
from tune_cache.cache.encode import Batcher, encode_unit
from tune_cache.cache.inventory import stamp_of
from tune_cache.cache.journal import read_unit, write_unit
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


OpenDecoders = Callable[[int, StoreSpec], contextlib.AbstractContextManager[Decoders]]


def open_pool(n_workers: int, spec: StoreSpec) -> contextlib.AbstractContextManager[Decoders]:
    return DecodePool(
        n_workers, sample_rate_hz=spec.segments.sample_rate_hz, channels=spec.channels
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
        0 chooses by audio length.
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
    """One store in the making."""

    spec: StoreSpec
    final: Path
    work: Path
    claims: Claims
    copies: dict[str, tuple[Store, str]]
    done: set[int] = field(default_factory=set)
    n_encoded: int = 0
    failed: dict[str, str] = field(default_factory=dict)

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
    encoder = run.load()
    if any(encoder.spec() != job.spec.encoder for job in jobs):
        raise EncoderError(
            f"encoder {encoder.name!r} is not the one that was described: its weights changed",
            hint="run the same command again",
        )
    batcher = Batcher(encoder, run.options.batch_size)
    done = 0.0
    n_workers = run.options.workers or os.cpu_count() or 1
    with run.open_decoders(n_workers, jobs[0].spec) as pool:
        while pending:
            held_elsewhere: list[int] = []
            for k, mine, decoded, waited in _decoded_units(pending, plan, jobs, pool):
                if mine:
                    _encode_one(k, plan[k], mine, decoded, waited, batcher)
                    decoded.clear()  # three units of audio would be held otherwise
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


def _decoded_units(
    pending: Sequence[int], plan: Sequence[Unit], jobs: Sequence[Job], pool: Decoders
) -> Iterator[tuple[int, list[Job], dict[str, DecodedAudio | AudioError], float]]:
    """Claim units one ahead and decode them; an empty list of jobs says that a rival has it."""
    ahead: deque[Waiting] = deque()

    def result() -> tuple[int, list[Job], dict[str, DecodedAudio | AudioError], float]:
        k, mine, unit, futures = ahead.popleft()
        began = time.perf_counter()
        decoded = {t.track_id: _result(f, t) for t, f in zip(unit, futures, strict=True)}
        return k, mine, decoded, time.perf_counter() - began

    for k in pending:
        mine = [job for job in jobs if not job.is_done(k, plan[k]) and job.claims.take(k)]
        for job in list(mine):
            if job.is_done(k, plan[k]):  # a rival finished it between the look and the claim
                job.claims.drop(k)
                mine.remove(job)
        if not mine:
            yield k, [], {}, 0.0
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
    decoded: dict[str, DecodedAudio | AudioError],
    waited: float,
    batcher: Batcher,
) -> None:
    """Encode one unit for every job that claimed it, and commit it."""
    for job in jobs:
        wanted = job.needs(unit)
        result = encode_unit(wanted, [decoded[t.track_id] for t in wanted], job.spec, batcher)
        cost = dataclasses.replace(result.ledger, wait_seconds=waited)
        waited = 0.0  # charged once
        write_unit(job.work, k, job.spec, dataclasses.replace(result, ledger=cost))
        job.done.add(k)
        job.n_encoded += sum(outcome.status == "ok" for outcome in result.outcomes)
        job.failed |= {o.track_id: o.message for o in result.outcomes if o.status != "ok"}
        job.claims.drop(k)
