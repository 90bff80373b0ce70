"""Claims on units of one store, so that several processes do not work twice.

Conventions
-----------
A claim is a POSIX record lock on byte k of the store's lock file; the system
drops it when its process ends, however it ends. One more byte is shared by all
who are at work, whether or not they have a unit just now. Correctness never
rests on it: units are deterministic and publication is atomic, so a file system
on which locks do nothing costs work only. The lock file is never deleted.

POSIX drops all locks of a process on a file as soon as it closes any descriptor
of that file; files that this process has claims on are therefore never opened
again to be asked about.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Claims", "alone", "claimed_units"]

ASSEMBLY_BYTE = 1 << 40
PRESENCE_BYTE = ASSEMBLY_BYTE + 1
FLOCK = "hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, process

_own: Counter[Path] = Counter()  # lock files that this process has claims on


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
            _own[self.path] += 1
            with contextlib.suppress(OSError):  # waits for a removal at most: milliseconds
                fcntl.lockf(self._descriptor, fcntl.LOCK_SH, 1, PRESENCE_BYTE)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            _own[self.path] -= 1
            self._descriptor = -1

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


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether nobody works on the store of a lock file; nobody begins inside this block.

    Where locks are not supported or do not reach other machines, the answer is True.
    """
    if _own[path]:
        yield False
        return
    descriptor = -1
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        is_free = True
        if descriptor >= 0:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, PRESENCE_BYTE)
            except (BlockingIOError, PermissionError):
                is_free = False
            except OSError:
                pass
        yield is_free
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def claimed_units(path: Path) -> dict[int, int]:
    """Unit to process, for the units of a lock file that others have claimed.

    A process of another machine, or of another container, has the number 0 or
    one that says nothing here. Empty where the system does not tell.
    """
    found: dict[int, int] = {}
    if sys.platform != "linux" or sys.maxsize < 2**32 or _own[path]:
        return found
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return found
    try:
        start = 0
        while start < ASSEMBLY_BYTE:
            question = struct.pack(FLOCK, fcntl.F_WRLCK, 0, start, ASSEMBLY_BYTE - start, 0)
            answer = struct.unpack(FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
            kind, _, first, length, process = answer
            if kind == fcntl.F_UNLCK:
                break
            found[first] = max(0, process)
            start = first + max(1, length)
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return found
