"""A decoder process, as seen from the thread that waits for it.

Conventions
-----------
Samples travel as raw bytes through a pipe (2 ms for a 45-s clip), a spool file
as its open descriptor through a socket; nothing is pickled. The process ends
with the one that started it, however that ends: it reads its orders from a pipe
of which this side holds the end. Signals that end a whole process group (Ctrl-C,
SLURM, timeout) do not reach it: whoever started it decides.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune_cache.audio.failures import REASONS, about, failure
from tune_cache.audio.mono import AudioFacts, DecodedAudio
from tune_cache.audio.samples import SpooledSamples
from tune_cache.audio.worker import HEADER
from tune_cache.errors import AudioError, StoreError, StoreNotFoundError, TuneCacheError
from tune_cache.signals import deaf

__all__ = ["PACE", "DecoderProcess", "KilledAtStartError", "Patience"]

START_SECONDS = 60.0  # of patience with a worker's imports on a busy machine
PACE = 5  # × real time: what a file must reach beyond its first seconds; a free core does 900
# a plain interpreter: multiprocessing would run the caller's main module again
_STARTER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tune_cache.audio.worker import main; main(**json.loads(sys.argv[2]))"
)
# address space is limited, and every thread and malloc arena reserves some
_LEAN = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a file may take, by what has been heard of it."""

    timeout_seconds: float
    rate_hz: int

    def until(self, began: float, heard: float, n_decoded: int) -> float:
        """When to give up.

        Parameters
        ----------
        began, heard
            Times of the order and of the last sign of progress.
        n_decoded
            Samples by then.
        """
        earned = n_decoded / (PACE * self.rate_hz)
        return self.timeout_seconds + min(heard, began + earned)

    def complaint(self, began: float, heard: float, n_decoded: int) -> str:
        """Say what was not done in time."""
        seconds = n_decoded / self.rate_hz
        if not n_decoded:
            return f"was not decoded within {self.timeout_seconds:g} s"
        if heard <= began + seconds / PACE:
            return f"stops after {seconds:.0f} s of audio: no more in {self.timeout_seconds:g} s"
        return f"gave {seconds:.0f} s of audio in {heard - began:.0f} s, expected {PACE} × as much"


class KilledAtStartError(TuneCacheError):
    """A process was killed before it was ready: by somebody, or for want of memory."""


class DecoderProcess:
    """One decoder in a process of its own.

    Parameters
    ----------
    settings
        Of :func:`~tune_cache.audio.worker.main`, as JSON values.

    Raises
    ------
    KilledAtStartError
        If it is killed before it is ready.
    TuneCacheError
        If it cannot be started.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        orders, self._orders = os.pipe()
        self._results, results = os.pipe()
        self._handover, handover = socket.socketpair()
        self._handover.setblocking(False)  # a descriptor comes before its answer
        self._spool = str(settings["spool"])
        mine = {"results": results, "handover": handover.fileno()}
        arguments = (json.dumps(sys.path), json.dumps({**settings, **mine}))
        try:
            with deaf():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _STARTER, *arguments],
                    stdin=orders,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # decoders chat there
                    pass_fds=list(mine.values()),
                    env={**os.environ, **_LEAN},
                )
        finally:
            os.close(orders)
            os.close(results)
            handover.close()
        self._poll = select.poll()
        self._poll.register(self._results, select.POLLIN)
        try:
            self._read(memoryview(bytearray(1)), time.monotonic() + START_SECONDS)
        except (EOFError, TimeoutError) as error:
            self.close()
            kind = (
                KilledAtStartError
                if isinstance(error, EOFError) and self.was_killed
                else TuneCacheError
            )
            raise kind(
                f"a decoder process ended before it began: {self._fate()}",
                hint=f"try: {sys.executable} -c 'import tune_cache.audio.worker'",
            ) from error

    def decode(
        self, track_id: str, path: Path, spill_above: int | None, patience: Patience
    ) -> DecodedAudio:
        """Have one file decoded.

        Raises
        ------
        AudioError
            ``timeout`` and ``crashed`` are the end of this process.
        StoreError
            If a spool file cannot be written or read.
        """
        began = heard = time.monotonic()
        header = bytearray(HEADER.size)
        n_decoded = n_text = n_samples = 0
        try:
            order = json.dumps([os.fspath(path), spill_above])
            os.write(self._orders, order.encode("ascii") + b"\n")
            while not n_text:
                self._read(memoryview(header), patience.until(began, heard, n_decoded))
                n_text, n_samples = HEADER.unpack(header)
                heard = time.monotonic()
                n_decoded = n_decoded if n_text else n_samples
            deadline = heard + patience.timeout_seconds
            text = bytearray(n_text)
            self._read(memoryview(text), deadline)
            samples = np.empty(n_samples, np.float32)
            self._read(samples.view(np.uint8).data, deadline)
        except (EOFError, BrokenPipeError) as error:
            refusal = failure("crashed", f"brought the decoder down: {self._fate()}")
            raise about(path, track_id, refusal) from error
        except TimeoutError as error:
            refusal = failure("timeout", patience.complaint(began, heard, n_decoded))
            raise about(path, track_id, refusal) from error
        answer = json.loads(text)
        if "errno" in answer:
            cause = OSError(answer["errno"], answer["message"])
            raise self._spool_trouble(cause) from cause
        if "reason" in answer:
            reason = answer["reason"]
            raise AudioError(
                answer["message"], hint=REASONS[reason], track_id=track_id, reason=reason
            )
        facts = AudioFacts(**{**answer["facts"], "notes": tuple(answer["facts"]["notes"])})
        return DecodedAudio(
            samples=self._spooled(facts.n_samples) if answer["is_spooled"] else samples,
            facts=facts,
            seconds=answer["seconds"],
            peak_rss_bytes=answer["peak_rss_bytes"],
        )

    def _spooled(self, n_samples: int) -> SpooledSamples:
        """Take over the spool file that the worker has sent."""
        try:
            _, descriptors, _, _ = socket.recv_fds(self._handover, 1, 1)
            if not descriptors:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            os.set_inheritable(descriptors[0], False)
            return SpooledSamples(descriptors[0], n_samples)
        except OSError as error:
            raise self._spool_trouble(error) from error

    def _spool_trouble(self, error: OSError) -> StoreError:
        """Blame the disk, not the track; a folder that is gone may have been published."""
        kind = StoreNotFoundError if error.errno == errno.ENOENT else StoreError
        return kind(
            f"spool file in {self._spool!r} cannot be used: {error.strerror}",
            hint="tracks of more than 10 minutes are laid down there, 4 bytes a sample: make room "
            "and run the same command again; what is done is kept",
        )

    @property
    def was_killed(self) -> bool:
        """Whether it was ended from outside, or for want of memory: no decoder does that."""
        return self._process.returncode == -signal.SIGKILL

    def kill(self) -> None:
        """End the process at once; its thread then sees the end of the pipe."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of its pipes."""
        self._process.kill()
        self._process.wait()
        os.close(self._orders)
        os.close(self._results)
        self._handover.close()

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
