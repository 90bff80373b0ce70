"""Keeping a store whole while somebody reads it, whoever removes or replaces it meanwhile.

Conventions
-----------
A reader keeps the folder open and reads below it, so that a store which is
renamed or replaced stays the store that was opened. It also has a shared lock
on ``COMPLETE`` (flock: no write permission is needed, and it ends with the
process); whoever removes a store wants that lock for itself. Where locks lie, a
removal still renames first: a reader that loses its files gets an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from tune_cache.errors import StoreError, StoreNotFoundError, quoted

__all__ = ["Hold", "hold_store", "holders", "is_held", "nothing_at", "sole_hold"]

COMPLETE = "COMPLETE"
LOCKS = Path("/proc/locks")
PATIENCE = 100  # looks, a millisecond apart, at a store that is about to be renamed
# a FIFO would wait for its writer, a device could do anything
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Hold:
    """One reader's hold on one store's folder; ends when nobody refers to it.

    Parameters
    ----------
    path
        The folder.
    folder, lock
        Descriptors; negative where there is none, then files are opened by path.
    """

    def __init__(self, path: Path, folder: int = -1, lock: int = -1) -> None:
        self.path, self.folder, self.lock = path, folder, lock
        self._finalizer = weakref.finalize(self, _close, folder, lock)

    def __reduce__(self) -> tuple[object, ...]:
        return (hold_store, (self.path,))

    @property
    def inode(self) -> int:
        """Of the folder that is held."""
        status = os.fstat(self.folder) if self.folder >= 0 else self.path.stat()
        return status.st_ino

    def close(self) -> None:
        """Give the hold back."""
        self._finalizer()
        self.folder = self.lock = -1

    def open(self, name: str) -> int:
        """Open a regular file by its name inside the store; a link is never followed.

        Raises
        ------
        StoreError
            If it may not be read.
        OSError
            If it cannot be opened, or is no regular file.
        """
        try:
            if self.folder < 0:
                descriptor = os.open(self.path / name, READ_FLAGS)
            else:
                descriptor = os.open(name, READ_FLAGS, dir_fd=self.folder)
        except PermissionError as error:
            raise private_to_another(self.path, name) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("it is no regular file")
        return descriptor

    def read(self, name: str, limit: int) -> bytes:
        """Read a whole file of at most ``limit`` bytes."""
        with os.fdopen(self.open(name), "rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            if n_bytes > limit:
                raise OSError(f"it is larger than {limit} bytes")
            return file.read(n_bytes)  # a buffer of the limit would be made for a limit

    def status(self, name: str) -> os.stat_result:
        """What a name inside the store is, links not followed.

        Raises
        ------
        StoreError
            If its folder may not be entered.
        OSError
            As the system says it.
        """
        try:
            if self.folder < 0:
                return (self.path / name).lstat()
            return os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except PermissionError as error:
            raise private_to_another(self.path, name) from error

    def check_readable(self, name: str) -> None:
        """See that a file may be read, without opening it.

        Raises
        ------
        StoreError
            If not.
        """
        if self.folder < 0:
            may = os.access(self.path / name, os.R_OK)
        else:
            may = os.access(name, os.R_OK, dir_fd=self.folder)
        if not may:
            raise private_to_another(self.path, name)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def hold_store(path: Path) -> Hold:
    """Hold a store's folder for reading.

    Raises
    ------
    StoreNotFoundError
        If there is no such folder, or it is being removed.
    """
    for _ in range(PATIENCE):
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise nothing_at(path) from error
        except OSError:  # out of descriptors, or no permission to list: by path, then
            return Hold(path)
        hold = Hold(path, folder, _shared_lock(folder))
        if hold.lock != _BUSY and _is_still(path, folder):
            return hold
        hold.close()
        time.sleep(0.001)
    raise StoreNotFoundError(
        f"store {str(path)!r} is being removed", hint="list what there is with `tune cache ls`"
    )


_BUSY = -2


def nothing_at(path: Path) -> StoreNotFoundError:
    """Make the error of a path without a store."""
    return StoreNotFoundError(
        f"no finished store at {str(path)!r}", hint="list what there is with `tune cache ls`"
    )


def private_to_another(path: Path, name: str) -> StoreError:
    """Make the error of a store of which a file may not be read: that is no damage."""
    return StoreError(
        f"store {str(path)!r} is private to another user: {name!r} may not be read",
        hint="use a cache of your own (--cache-dir), or let its owner share it and the folders "
        f"above it: chmod -R go+rX {quoted(path.absolute())}",
    )


def _shared_lock(folder: int) -> int:
    """Lock ``COMPLETE`` for reading: its descriptor, -1 without a lock, or ``_BUSY``."""
    try:
        descriptor = os.open(COMPLETE, READ_FLAGS, dir_fd=folder)
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return _BUSY
    except OSError:  # locks are not supported here
        pass
    return descriptor


def _is_still(path: Path, folder: int) -> bool:
    """Whether a path still leads to an open folder."""
    try:
        return os.path.samestat(path.stat(), os.fstat(folder))
    except OSError:
        return False


@contextlib.contextmanager
def sole_hold(path: Path) -> Iterator[bool]:
    """Hold a store so that nobody else does; False if somebody reads it.

    Readers that come meanwhile wait a moment and then find nothing: rename the
    store inside this block.
    """
    descriptor = -1
    # over NFS an exclusive lock needs a file that is open for writing
    for access in (os.O_RDWR, os.O_RDONLY):
        flags = access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            descriptor = os.open(path / COMPLETE, flags)
            break
    try:
        free = True
        if descriptor >= 0:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:  # locks are not supported here
                pass
        yield free
    finally:
        _close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody reads a store, as far as locks reach."""
    with sole_hold(path) as is_free:
        return not is_free


def holders(path: Path) -> list[int]:
    """Processes of this machine that hold a store, as far as the system tells."""
    try:
        inode = (path / COMPLETE).lstat().st_ino
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return []
    found = set()
    for line in lines:  # "1: FLOCK  ADVISORY  READ 4242 fe:00:131 0 EOF"
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            found.add(int(words[4]))
    return sorted(found)
