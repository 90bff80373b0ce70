"""The process on the other side of :class:`~tune_cache.audio.pool.DecodePool`.

Conventions
-----------
Orders arrive on standard input, one path a line, as JSON. Each answer is
:data:`HEADER` (bytes of text, number of samples), JSON text, samples as float32.
When standard input ends, so does the process, even in the middle of a file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import resource
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from tune_cache.audio.decoding import decode
from tune_cache.errors import AudioError

__all__ = ["HEADER", "main"]

HEADER = struct.Struct("<IQ")


# the encoder's threads come first: one of them descheduled keeps the others waiting at a barrier
NICENESS = 10


def main(results: int, memory_bytes: int, **settings: Any) -> None:
    """Serve orders until standard input ends.

    Parameters
    ----------
    results
        Descriptor that answers are written to.
    memory_bytes
        Address space beyond what is in use now.
    settings
        Of :func:`~tune_cache.audio.decode`.
    """
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool's process decides what Ctrl-C ends
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    _limit_memory(memory_bytes)
    with open(results, "wb") as answers:
        answers.write(b"\0")
        answers.flush()
        while True:
            _answer(answers, Path(json.loads(orders.get())), settings)
            answers.flush()


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


def _answer(answers: BinaryIO, path: Path, settings: dict[str, Any]) -> None:
    """Decode one file and write what came of it."""
    samples: bytes | memoryview = b""
    try:
        decoded = decode(path, **settings)
        facts = dataclasses.asdict(decoded.facts)
        samples = decoded.samples.data
    except AudioError as error:
        facts = {"reason": error.reason, "message": error.message}
    except Exception as error:  # noqa: BLE001  # a decoder's own, of any kind
        facts = {"reason": "crashed", "message": f"audio file {str(path)!r} gave {error!r}"}
    text = json.dumps(facts).encode("ascii")
    answers.write(HEADER.pack(len(text), len(samples)))
    answers.write(text)
    answers.write(samples)
