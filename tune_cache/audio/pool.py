"""Decode in worker processes, so that a hostile file costs one track and no more.

Conventions
-----------
A worker that hangs, dies or outgrows its memory is replaced, and its track
fails with ``timeout``, ``crashed`` or ``memory``. Samples travel as raw bytes
through a pipe (2 ms for a 45-s clip); nothing is pickled. Results do not depend
on the number of workers. Workers end with the process that started them,
however it ends: they read their orders from a pipe of which it holds the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType

import numpy as np

from tune_cache.audio.failures import REASONS, about, failure
from tune_cache.audio.mono import AudioFacts, DecodedAudio
from tune_cache.audio.worker import HEADER
from tune_cache.errors import AudioError, TuneCacheError
from tune_cache.specs import ChannelRule

__all__ = ["DecodePool"]

START_SECONDS = 60.0  # of patience with a worker's imports on a busy machine
FATAL = ("crashed", "memory", "timeout")  # the worker is not used again
# a plain interpreter: multiprocessing would run the caller's main module again
_STARTER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tune_cache.audio.worker import main; main(**json.loads(sys.argv[2]))"
)
# address space is limited, and every thread and malloc arena reserves some
_LEAN = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


class DecodePool:
    """A fixed number of decoders, each in a process of its own.

    Parameters
    ----------
    n_workers
        Processes, each with one thread here that waits for it.
    timeout_seconds
        From order to the last sample of one file, on the wall clock.
    memory_bytes
        Address space a worker may take beyond what it has when it starts.

    Notes
    -----
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
        timeout_seconds: float = 30,
        memory_bytes: int = 1 << 30,
    ) -> None:
        self._settings = {
            "sample_rate_hz": sample_rate_hz,
            "channels": channels,
            "memory_bytes": memory_bytes,
        }
        self._timeout_seconds = timeout_seconds
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._workers: set[_Worker] = set()
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
        worker: _Worker | None = None
        while (order := self._orders.get()) is not None:
            track_id, path, future = order
            if not future.set_running_or_notify_cancel():
                continue
            answer: DecodedAudio | Exception | None = None
            while answer is None:
                is_fresh = worker is None
                try:
                    worker = worker or self._start()
                    answer = worker.decode(track_id, path, self._timeout_seconds)
                except Exception as error:  # noqa: BLE001  # belongs to whoever asks for the result
                    reason = error.reason if isinstance(error, AudioError) else "crashed"
                    if worker is not None and reason in FATAL:
                        self._discard(worker)
                        worker = None
                    # what an old worker died of need not be this file's fault: try a new one
                    if is_fresh or reason not in FATAL or reason == "timeout":
                        answer = error
            if isinstance(answer, Exception):
                future.set_exception(CancelledError() if self._closed else answer)
            else:
                future.set_result(answer)
        if worker is not None:
            self._discard(worker)

    def _start(self) -> _Worker:
        worker = _Worker(self._settings)
        self._workers.add(worker)
        if self._closed:  # close() did not see it
            worker.kill()
        return worker

    def _discard(self, worker: _Worker) -> None:
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


class _Worker:
    """One decoder process, as seen from the thread that owns it."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        orders, self._orders = os.pipe()
        self._results, results = os.pipe()
        arguments = (json.dumps(sys.path), json.dumps({**settings, "results": results}))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _STARTER, *arguments],
                stdin=orders,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # decoders chat there
                pass_fds=[results],
                env={**os.environ, **_LEAN},
            )
        finally:
            os.close(orders)
            os.close(results)
        self._poll = select.poll()
        self._poll.register(self._results, select.POLLIN)
        try:
            self._read(memoryview(bytearray(1)), time.monotonic() + START_SECONDS)
        except (EOFError, TimeoutError) as error:
            self.close()
            raise TuneCacheError(
                f"a decoder process ended before it began: {self._fate()}",
                hint=f"try: {sys.executable} -c 'import tune_cache.audio.worker'",
            ) from error

    def decode(self, track_id: str, path: Path, timeout_seconds: float) -> DecodedAudio:
        """Have one file decoded."""
        deadline = time.monotonic() + timeout_seconds
        header = bytearray(HEADER.size)
        try:
            os.write(self._orders, json.dumps(os.fspath(path)).encode("ascii") + b"\n")
            self._read(memoryview(header), deadline)
            n_text, n_samples = HEADER.unpack(header)
            text = bytearray(n_text)
            self._read(memoryview(text), deadline)
            samples = np.empty(n_samples, np.float32)
            self._read(samples.view(np.uint8).data, deadline)
        except (EOFError, BrokenPipeError) as error:
            refusal = failure("crashed", f"brought the decoder down: {self._fate()}")
            raise about(path, track_id, refusal) from error
        except TimeoutError as error:
            refusal = failure("timeout", f"was not decoded within {timeout_seconds:g} s")
            raise about(path, track_id, refusal) from error
        answer = json.loads(text)
        if "reason" in answer:
            reason = answer["reason"]
            raise AudioError(
                answer["message"], hint=REASONS[reason], track_id=track_id, reason=reason
            )
        answer["notes"] = tuple(answer["notes"])
        return DecodedAudio(samples=samples, facts=AudioFacts(**answer))

    def kill(self) -> None:
        """End the process at once; its thread then sees the end of the pipe."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of its pipes."""
        self._process.kill()
        self._process.wait()
        os.close(self._orders)
        os.close(self._results)

    def _read(self, target: memoryview, deadline: float) -> None:
        """Fill ``target`` from the worker, or raise EOFError or TimeoutError."""
        while target:
            if not self._poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
                raise TimeoutError
            n_read = os.readv(self._results, [target])
            if n_read == 0:
                raise EOFError
            target = target[n_read:]

    def _fate(self) -> str:
        """How the process ended, after its pipe did."""
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
