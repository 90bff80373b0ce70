"""Claims on units of one store, so that several processes do not work twice.

Conventions
-----------
A claim is a POSIX record lock on byte k of the store's lock file; the system
drops it when its process ends, however it ends. Correctness never rests on it:
units are deterministic and publication is atomic, so a file system on which
locks do nothing costs work only. The lock file is never deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Claims"]

ASSEMBLY_BYTE = 1 << 40


class Claims:
    """Claims of this process on one store; use as a context manager.

    Parameters
    ----------
    path
        The lock file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> Claims:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(PermissionError):  # another user's: it only saves work
            self._descriptor = os.open(self.path, flags, 0o666)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def take(self, index: int, *, wait: bool = False) -> bool:
        """Claim unit ``index``; False if another process holds it."""
        if self._descriptor < 0:
            return True
        operation = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.lockf(self._descriptor, operation, 1, index)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True  # locks are not supported here: work twice rather than not at all
        return True

    def drop(self, index: int) -> None:
        """Give a claim back."""
        with contextlib.suppress(OSError, ValueError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, index)

    @contextlib.contextmanager
    def assembling(self) -> Iterator[None]:
        """Wait for, and hold, the right to assemble."""
        self.take(ASSEMBLY_BYTE, wait=True)
        try:
            yield
        finally:
            self.drop(ASSEMBLY_BYTE)
