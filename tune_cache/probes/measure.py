"""What stage two costs: seconds, and memory above what was there before.

Conventions
-----------
Memory is what Python and NumPy allocate, as ``tracemalloc`` counts it: the same
in every run, but for a few kilobytes, whatever else the process holds. Workspace
inside LAPACK is not in it. Counting slows small fits down, by half at worst, so of
layers of one shape one is counted. Where somebody traces already, it is left
alone and memory is unknown (NaN).
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Measured", "measured"]


@dataclass(slots=True)
class Measured:
    """Filled in when the block ends."""

    seconds: float = 0.0
    peak_bytes: float = float("nan")


@contextmanager
def measured(*, memory: bool = True) -> Iterator[Measured]:
    """Measure what the block takes; without ``memory`` seconds only.

    Examples
    --------
    >>> with measured() as found:
    ...     zeros = bytearray(10_000_000)
    >>> 10_000_000 <= found.peak_bytes < 10_100_000
    True
    """
    found = Measured()
    is_ours = memory and not tracemalloc.is_tracing()
    if is_ours:
        tracemalloc.start()
    started = time.perf_counter()
    try:
        yield found
    finally:
        found.seconds = time.perf_counter() - started
        if is_ours:
            found.peak_bytes = float(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
