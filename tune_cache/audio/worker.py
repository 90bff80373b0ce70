"""The process on the other side of :class:`~tune_cache.audio.process.DecoderProcess`.

Conventions
-----------
Orders arrive on standard input, one a line, as JSON: a path, and the number of
samples beyond which they go to a spool file, or null. Each answer is
:data:`HEADER` (bytes of text, number of samples), JSON text, samples as float32;
the descriptor of a spool file goes before it through a socket. While a file is
decoded, headers without text say how far it is.
When standard input ends, so does the process, even in the middle of a file; it
is started with SIGINT and SIGTERM blocked.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import queue
import resource
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from tune_cache.audio.decoding import decode
from tune_cache.audio.memory import peak_rss_bytes
from tune_cache.audio.samples import Spilling, SpooledSamples
from tune_cache.errors import AudioError

__all__ = ["HEADER", "main"]

HEADER = struct.Struct("<IQ")


# the encoder's threads come first: one of them descheduled keeps the others waiting at a barrier
NICENESS = 10
HEARTBEAT_SECONDS = 1.0


def main(results: int, handover: int, memory_bytes: int, spool: str, **settings: Any) -> None:
    """Serve orders until standard input ends.

    Parameters
    ----------
    results
        Descriptor that answers are written to.
    handover
        Socket through which descriptors of spool files leave.
    memory_bytes
        Address space beyond what is in use now.
    spool
        Folder of spool files; empty if there are none.
    settings
        Of :func:`~tune_cache.audio.decode`.
    """
    os.nice(NICENESS)
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    _limit_memory(memory_bytes)
    with open(results, "wb") as answers, socket.socket(fileno=handover) as channel:
        answers.write(b"\0")
        answers.flush()
        while True:
            path, above = json.loads(orders.get())
            spilling = None if above is None else Spilling(folder=Path(spool), above=above)
            heart = _Heart(answers)
            order = {"spilling": spilling, "on_progress": heart, **settings}
            _answer(answers, channel, Path(path), order)
            answers.flush()


class _Heart:
    """Tells now and then how many samples were decoded."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._n_samples = 0
        self._told = time.monotonic()

    def __call__(self, n_samples: int) -> None:
        self._n_samples += n_samples
        now = time.monotonic()
        if now - self._told >= HEARTBEAT_SECONDS:
            self._told = now
            self._answers.write(HEADER.pack(0, self._n_samples))
            self._answers.flush()


def _listen(orders: queue.SimpleQueue[bytes]) -> None:
    """Queue orders; leave at once when whoever gives them is gone."""
    for order in sys.stdin.buffer:
        orders.put(order)
    os._exit(0)


def _limit_memory(memory_bytes: int) -> None:
    """Let allocations fail beyond what is in use now and ``memory_bytes``."""
    try:
        in_use = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except OSError:
        return  # not Linux: no limit is better than one below what is in use
    limit = in_use * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _answer(
    answers: BinaryIO, channel: socket.socket, path: Path, settings: dict[str, Any]
) -> None:
    """Decode one file and write what came of it."""
    samples: bytes | memoryview = b""
    facts: dict[str, Any]
    try:
        decoded = decode(path, **settings)
        facts = {
            "facts": dataclasses.asdict(decoded.facts),
            "seconds": decoded.seconds,
            "is_spooled": isinstance(decoded.samples, SpooledSamples),
        }
        if isinstance(decoded.samples, SpooledSamples):
            socket.send_fds(channel, [b"\0"], [decoded.samples.descriptor])
        else:
            samples = decoded.samples.data
    except AudioError as error:
        facts = {"reason": error.reason, "message": error.message}
    except OSError as error:  # of the spool file
        facts = {"errno": error.errno or errno.EIO, "message": error.strerror or str(error)}
    except Exception as error:  # noqa: BLE001  # a decoder's own, of any kind
        facts = {"reason": "crashed", "message": f"audio file {str(path)!r} gave {error!r}"}
    text = json.dumps({**facts, "peak_rss_bytes": peak_rss_bytes()}).encode("ascii")
    answers.write(HEADER.pack(len(text), len(samples)))
    answers.write(text)
    answers.write(samples)
