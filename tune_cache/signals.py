"""Signals that end a process group (Ctrl-C, SLURM, timeout), kept from who is not to decide."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

__all__ = ["deaf"]


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Hold back what ends a process group: what is started here never hears of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
