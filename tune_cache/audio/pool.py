"""Decode in worker processes, so that a hostile file costs one track and no more.

Conventions
-----------
A worker that hangs, dies or outgrows its memory is replaced, and its track
fails with ``timeout``, ``crashed`` or ``memory``; a worker that somebody killed
is not held against its track, a second one is. With a folder for spool files,
tracks too long for memory stay on disk. Results do not depend on the number of
workers, nor on where samples lie.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType

import numpy as np

from tune_cache.audio.mono import DecodedAudio
from tune_cache.audio.process import DecoderProcess, KilledAtStartError, Patience
from tune_cache.errors import AudioError, StoreError
from tune_cache.specs import ChannelRule

__all__ = ["DecodePool"]

FATAL = ("crashed", "memory", "timeout")  # the worker is not used again
SPILL_SECONDS = 600  # a longer track goes to a spool file
HELD_SECONDS = 1200  # when arrays of so much are in use, the next tracks go there as well


class DecodePool:
    """A fixed number of decoders, each in a process of its own.

    Parameters
    ----------
    n_workers
        Processes, each with one thread here that waits for it.
    channels, slices
        As :func:`~tune_cache.audio.decode` takes them.
    timeout_seconds
        Without a sign of progress, on the wall clock. A file that makes progress has
        this, and a second for every 5 of audio decoded so far.
    memory_bytes
        Address space a worker may take beyond what it has when it starts.
    spool
        Folder for what is too long for memory; None keeps everything there.
    keep_samples
        False for the facts alone.

    Notes
    -----
    With a spool folder, what results hold in memory is bounded, whatever files
    and their headers say: :data:`HELD_SECONDS` of audio and, for every worker,
    one track of at most :data:`SPILL_SECONDS`.

    ::

        with DecodePool(2, sample_rate_hz=24_000) as pool:
            for track_id, future in pool.imap(tracks):
                samples = future.result().samples
    """

    def __init__(
        self,
        n_workers: int,
        *,
        sample_rate_hz: int,
        channels: ChannelRule = "mix",
        slices: tuple[float, float] | None = None,
        timeout_seconds: float = 30,
        memory_bytes: int = 1 << 30,
        spool: Path | None = None,
        keep_samples: bool = True,
    ) -> None:
        self._settings = {
            "sample_rate_hz": sample_rate_hz,
            "channels": channels,
            "slices": slices,
            "memory_bytes": memory_bytes,
            "spool": "" if spool is None else os.fspath(spool),
            "keep_samples": keep_samples,
        }
        self._rate_hz = sample_rate_hz
        self._patience = Patience(timeout_seconds, sample_rate_hz)
        self._in_use: list[weakref.ref[np.ndarray]] = []
        self._counting = threading.Lock()
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._workers: set[DecoderProcess] = set()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"decode-{index}", daemon=True)
            for index in range(max(1, n_workers))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, track_id: str, path: Path) -> Future[DecodedAudio]:
        """Queue one file.

        A result is held until the caller drops its future: submit no more than
        fits in memory, or let :meth:`imap` see to it.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        future: Future[DecodedAudio] = Future()
        self._orders.put((track_id, path, future))
        return future

    def imap(
        self, tracks: Iterable[tuple[str, Path]], *, n_ahead: int | None = None
    ) -> Iterator[tuple[str, Future[DecodedAudio]]]:
        """Decode in order, at most ``n_ahead`` files before the one being used.

        Parameters
        ----------
        tracks
            Pairs of track id and path; read no further than decoded.
        n_ahead
            Two a worker if None.

        Yields
        ------
        track id and a future that is done; ``result()`` raises its AudioError.
        """
        limit = 2 * len(self._threads) if n_ahead is None else max(1, n_ahead)
        waiting: deque[tuple[str, Future[DecodedAudio]]] = deque()
        try:
            for track_id, path in tracks:
                if len(waiting) == limit:
                    yield _finished(waiting)
                waiting.append((track_id, self.submit(track_id, path)))
            while waiting:
                yield _finished(waiting)
        finally:
            for _, future in waiting:
                future.cancel()

    def close(self) -> None:
        """Drop what is queued, end the workers, and wait until they are gone."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while (order := self._orders.get_nowait()) is not None:
                order[2].cancel()
        for _ in self._threads:
            self._orders.put(None)
        for worker in tuple(self._workers):
            worker.kill()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _serve(self) -> None:
        """Pass orders to one worker, and start another where it fell."""
        worker: DecoderProcess | None = None
        while (order := self._orders.get()) is not None:
            worker = self._fulfil(order, worker)
            del order  # its result would be held until the next one
        if worker is not None:
            self._discard(worker)

    def _fulfil(self, order: _Order, worker: DecoderProcess | None) -> DecoderProcess | None:
        """Have one file decoded; returns the worker for the next."""
        track_id, path, future = order
        if not future.set_running_or_notify_cancel():
            return worker
        answer: DecodedAudio | Exception | None = None
        n_killed = 0
        while answer is None:
            is_fresh, was_killed = worker is None, False
            try:
                worker = worker or self._start()
                decoded = worker.decode(track_id, path, self._spill_above(), self._patience)
                self._count(decoded)
                answer = decoded
            except StoreError as error:  # of the spool: neither the file's nor the worker's
                answer = error
            except KilledAtStartError as error:
                n_killed += 1
                answer = error if n_killed == 2 or self._closed else None
            except Exception as error:  # noqa: BLE001  # belongs to whoever asks for the result
                reason = error.reason if isinstance(error, AudioError) else "crashed"
                if worker is not None and reason in FATAL:
                    was_killed = worker.was_killed
                    self._discard(worker)
                    worker = None
                n_killed += was_killed
                # what an old worker died of, or who killed it, need not be this file's fault
                is_last = n_killed == 2 if was_killed else is_fresh
                if is_last or reason not in FATAL or reason == "timeout" or self._closed:
                    answer = error
        if isinstance(answer, Exception):
            future.set_exception(CancelledError() if self._closed else answer)
        else:
            future.set_result(answer)
        return worker

    def _count(self, decoded: DecodedAudio) -> None:
        """Remember an array for as long as somebody uses it."""
        if isinstance(decoded.samples, np.ndarray):
            with self._counting:
                self._in_use.append(weakref.ref(decoded.samples))

    def _held_samples(self) -> int:
        """Samples in all arrays that are still used."""
        with self._counting:
            arrays = [(reference, reference()) for reference in self._in_use]
            self._in_use = [reference for reference, array in arrays if array is not None]
            return sum(len(array) for _, array in arrays if array is not None)

    def _spill_above(self) -> int | None:
        """Samples of the next track that may lie in memory."""
        if not self._settings["spool"]:
            return None
        is_full = self._held_samples() >= HELD_SECONDS * self._rate_hz
        return 0 if is_full else SPILL_SECONDS * self._rate_hz

    def _start(self) -> DecoderProcess:
        worker = DecoderProcess(self._settings)
        self._workers.add(worker)
        if self._closed:  # close() did not see it
            worker.kill()
        return worker

    def _discard(self, worker: DecoderProcess) -> None:
        self._workers.discard(worker)
        worker.close()


_Order = tuple[str, Path, "Future[DecodedAudio]"]


def _finished(
    waiting: deque[tuple[str, Future[DecodedAudio]]],
) -> tuple[str, Future[DecodedAudio]]:
    """Wait for the first in the row and take it out."""
    track_id, future = waiting[0]
    future.exception()
    waiting.popleft()
    return track_id, future
