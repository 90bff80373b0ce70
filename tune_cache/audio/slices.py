"""Cut a signal at the file's own rate and resample each slice by itself, as MARBLE v2 does.

Conventions
-----------
A slice has int(seconds · rate) frames; a tail is one if it is at least a given share
of that. Slices stand one after the other on a grid of the target rate: what a
resampled slice lacks to its full length is zeros, but for the last, whose zeros
are left to whoever pads.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr

__all__ = ["Slicer"]


class Slicer:
    """Takes mono blocks, gives samples at the target rate; holds one slice.

    Parameters
    ----------
    seconds, least_share
        Of a slice, and of it that a tail must have.

    Examples
    --------
    >>> slicer = Slicer(1.0, 0.8, 100)
    >>> [len(piece) for piece in slicer.take(np.ones(380, "f4"), 200)]
    [100]
    >>> [len(piece) for piece in slicer.finish()]
    [90]
    """

    def __init__(self, seconds: float, least_share: float, target_hz: int) -> None:
        self._seconds, self._least_share, self._target_hz = seconds, least_share, target_hz
        self._length = round(seconds * target_hz)
        self._held: list[np.ndarray] = []
        self._n_held = self._rate_hz = 0
        self._lacking = 0  # zeros between the last slice and the next
        self.n_dropped = 0

    def take(self, block: np.ndarray, rate_hz: int) -> Iterator[np.ndarray]:
        """Add a block at a rate; a new rate begins a new slice."""
        if rate_hz != self._rate_hz:
            yield from self.finish()
            self._rate_hz = rate_hz
        n_frames = int(self._seconds * rate_hz)
        while len(block):
            piece, block = np.split(block, [n_frames - self._n_held])
            self._held.append(piece)
            self._n_held += len(piece)
            if self._n_held == n_frames:
                yield from self._emit()

    def finish(self) -> Iterator[np.ndarray]:
        """Give the tail, or drop it."""
        if self._n_held and self._n_held / int(self._seconds * self._rate_hz) >= self._least_share:
            yield from self._emit()
        self.n_dropped += self._n_held
        self._held, self._n_held = [], 0

    def _emit(self) -> Iterator[np.ndarray]:
        frames = np.concatenate(self._held)
        self._held, self._n_held = [], 0
        if self._rate_hz != self._target_hz:
            frames = soxr.resample(frames, self._rate_hz, self._target_hz, quality="HQ")
        frames = frames[: self._length].astype(np.float32, copy=False)
        if self._lacking:
            yield np.zeros(self._lacking, np.float32)
        self._lacking = self._length - len(frames)
        yield frames
