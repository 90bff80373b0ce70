"""Where decoded samples lie: in memory, or in a file without a name if they are many.

Conventions
-----------
Samples are float32, read by slices with step 1. A spool file lies in a folder
of the caller's choice and has no name there: it ends with the last process that
has it open, however that ends, and nobody else can open it. What goes wrong
with it is the machine's fault, never the track's.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Collected", "Spilling", "SpoolError", "SpooledSamples"]

ITEM_BYTES = 4


class SpoolError(Exception):
    """A spool file could not be written; not an OSError, which would be the audio file's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Spilling:
    """When and where samples leave memory.

    Parameters
    ----------
    folder
        For spool files; on a disk, as their size has no other bound than
        :data:`~tune_cache.audio.mono.LONGEST_SECONDS`.
    above
        Number of samples held in memory at most.
    """

    folder: Path
    above: int


class SpooledSamples:
    """Samples in a file without a name, closed when the last reference goes.

    A slice is read when it is asked for and belongs to whoever asked.
    ``numpy.asarray`` reads all of them.

    Parameters
    ----------
    descriptor
        Of the file; it is closed here.
    n_samples
        That it holds.

    Raises
    ------
    OSError
        If the file does not hold them.
    """

    def __init__(self, descriptor: int, n_samples: int) -> None:
        self._close = weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor
        self._n_samples = n_samples
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != ITEM_BYTES * n_samples:
            raise OSError(
                errno.EIO, f"spool file has {facts.st_size} bytes for {n_samples} samples"
            )

    def __len__(self) -> int:
        return self._n_samples

    def __getitem__(self, piece: slice, /) -> np.ndarray:
        start, stop, step = piece.indices(self._n_samples)
        if step != 1:
            raise ValueError(f"samples are read with step {step}, expected 1")
        samples = np.empty(max(0, stop - start), np.float32)
        target, offset = samples.view(np.uint8).data, ITEM_BYTES * start
        while target:
            n_read = os.preadv(self._descriptor, [target], offset)
            if n_read == 0:
                raise OSError(errno.EIO, "spool file is shorter than it was")
            target, offset = target[n_read:], offset + n_read
        return samples

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    @property
    def descriptor(self) -> int:
        """Of the open file."""
        return self._descriptor

    def close(self) -> None:
        """Let go of the file now."""
        self._close()


class Collected:
    """Takes samples piece by piece; beyond a limit they go to a file.

    Parameters
    ----------
    spilling
        None keeps everything in memory.
    keep
        False counts only.
    """

    def __init__(self, spilling: Spilling | None = None, *, keep: bool = True) -> None:
        self.n_samples = 0
        self._spilling = spilling
        self._keep = keep
        self._buffer = np.empty(0, np.float32)
        self._file: FileIO | None = None

    def append(self, piece: np.ndarray, *, expected: int) -> None:
        """Add samples.

        Parameters
        ----------
        expected
            How many there will be in all; taken as a wish, headers lie.

        Raises
        ------
        SpoolError
            If the file cannot be written.
        """
        stop = self.n_samples + len(piece)
        limit = max(stop, expected) if self._spilling is None else self._spilling.above
        if not self._keep:
            pass
        elif stop > limit:
            self._file = self._file or self._spill()
            self._write(self._file, piece)
        else:
            if stop > len(self._buffer):
                self._grow(max(stop, min(expected, limit), len(self._buffer) * 5 // 4))
            self._buffer[self.n_samples : stop] = piece
        self.n_samples = stop

    def result(self) -> np.ndarray | SpooledSamples:
        """Hand over what was collected; this object is done then."""
        if self._file is None:
            self._buffer.resize(self.n_samples if self._keep else 0, refcheck=False)
            return self._buffer
        try:
            with self._file as file:
                return SpooledSamples(os.dup(file.fileno()), self.n_samples)
        except OSError as error:
            raise SpoolError(error) from error

    def _grow(self, size: int) -> None:
        """Make room in place; pages that are never touched cost nothing."""
        if len(self._buffer):
            self._buffer.resize(size, refcheck=False)
        else:
            self._buffer = np.empty(size, np.float32)

    def _spill(self) -> FileIO:
        """Move what is in memory to a new file."""
        import tempfile  # most tracks need none

        folder = self._spilling.folder if self._spilling is not None else None
        try:  # on Linux it never has a name, elsewhere for an instant
            file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise SpoolError(error) from error
        weakref.finalize(self, file.close)
        held, self._buffer = self._buffer[: self.n_samples], np.empty(0, np.float32)
        self._write(file, held)
        return file

    @staticmethod
    def _write(file: FileIO, piece: np.ndarray) -> None:
        rest = np.ascontiguousarray(piece, np.float32).view(np.uint8).data
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise SpoolError(error) from error
