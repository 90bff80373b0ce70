"""The only place where the cache changes the disk, so that every step can be made to fail.

Conventions
-----------
A file appears under its final name complete or not at all: it is written under
a private name (``O_EXCL``, ``O_NOFOLLOW``), synchronised, renamed, and the
folder is synchronised. Every step passes :func:`step` first; tests install an
observer there that kills the process, tears a write or raises ``ENOSPC``.

The order write, fsync, rename, fsync of the folder is what POSIX needs for
durability; see T. S. Pillai et al., "All File Systems Are Not Created Equal",
OSDI 2014, section 4.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = [
    "ASIDE_SUFFIX",
    "TEMPORARY_SUFFIX",
    "appearing_durably",
    "make_folders",
    "make_private_folder",
    "may_write_in",
    "observed",
    "publish_folder",
    "remove_link",
    "remove_tree",
    "rename_folder",
    "swap_folders",
    "sync_folder",
    "touch",
    "unique_suffix",
    "write_durably",
]

ASIDE_SUFFIX = ".aside"
TEMPORARY_SUFFIX = ".tmp"
Observer = Callable[[str, Path, bytes | None], bytes | None]
_observer: Observer | None = None


@contextlib.contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Call ``observer(operation, path, data)`` before every change of the disk.

    What it returns replaces the data of a write, so that a test can tear one.
    """
    global _observer
    previous, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = previous


def step(operation: str, path: Path, data: bytes | None = None) -> bytes | None:
    """Announce one change of the disk."""
    if _observer is None:
        return data
    return _observer(operation, path, data)


def unique_suffix() -> str:
    """Name the maker of a temporary file: host, process and a random part."""
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:40]
    return f"{host}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which file it was about in an error of a descriptor, which knows no name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:  # else it is a sentence of ours
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a loss of power."""
    with _named(folder):
        step("sync-folder", folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_private_folder(folder: Path, *, exist_ok: bool = False) -> None:
    """Create a folder that only its owner enters while it is being filled.

    Parameters
    ----------
    exist_ok
        Leave one that is there as it is, but see to its name: whoever made it may
        have been killed before it could.
    """
    step("make-folder", folder)
    with contextlib.suppress(FileExistsError) if exist_ok else contextlib.nullcontext():
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)


def make_folders(folder: Path) -> None:
    """Create a folder and what is missing above it, so that they survive a loss of power."""
    if folder.is_dir():
        with contextlib.suppress(PermissionError):  # then no run of ours made it, nor died of it
            sync_folder(folder.parent)
        return
    make_folders(folder.parent)
    step("make-folder", folder)
    try:
        folder.mkdir()
    except FileExistsError:  # pathlib's own answer takes two looks, between which it may go
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(folder.stat().st_mode):
                raise
    sync_folder(folder.parent)


def may_write_in(folder: Path) -> bool:
    """Whether files may be made in a folder.

    Asked of the folder that is open, not of its name: a rival may remove it, or make it, between
    two looks at a name.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return False
    try:
        return os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, *, sync_parent: bool = True) -> None:
    """Write a file that is there completely or not at all, even after a crash.

    Parameters
    ----------
    path
        Final name; an existing file is replaced in one step.
    data
        The content.
    sync_parent
        False inside a private folder that is synchronised as a whole later.

    Raises
    ------
    OSError
        As the system says it, with the file's name; the temporary file is gone then.
    """
    temporary = path.with_name(f".{path.name}.{unique_suffix()}{TEMPORARY_SUFFIX}")
    with _renamed_at_the_end(temporary, path) as descriptor, os.fdopen(descriptor, "wb") as file:
        torn = step("write", temporary, data)
        file.write(data if torn is None else torn)
        file.flush()
        step("sync", temporary)
        os.fsync(file.fileno())
    if sync_parent:
        sync_folder(path.parent)


@contextlib.contextmanager
def appearing_durably(path: Path) -> Iterator[Path]:
    """Stream a large file: write to the private name given; at the end it takes its own.

    Raises
    ------
    OSError
        As the system says it, with the file's name; the temporary file is gone then.
    """
    temporary = path.with_name(f".{unique_suffix()}{TEMPORARY_SUFFIX}")
    with _renamed_at_the_end(temporary, path) as created:
        os.close(created)
        yield temporary
        step("sync", temporary)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(path.parent)


@contextlib.contextmanager
def _renamed_at_the_end(temporary: Path, path: Path) -> Iterator[int]:
    """Create a private file, give its descriptor away, and rename it; gone if anything fails."""
    try:
        with _named(path):
            step("create", temporary)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            yield os.open(temporary, flags, 0o666)
            step("rename", path)
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def publish_folder(private: Path, final: Path) -> bool:
    """Give a finished folder its final name; False where a rival was first.

    A folder that exists and is not empty is never replaced (rename(2)).
    """
    for folder, _, _ in os.walk(private, topdown=False):
        sync_folder(Path(folder))
    mask = os.umask(0)
    os.umask(mask)
    private.chmod(0o777 & ~mask)
    step("publish", final)
    try:
        private.rename(final)
    except OSError:
        if final.is_dir():
            return False
        raise
    sync_folder(final.parent)
    return True


def rename_folder(old: Path, new: Path) -> None:
    """Give a folder another name, durably; what has that name must be empty.

    Raises
    ------
    OSError
        As the system says it.
    """
    step("rename-folder", new)
    old.rename(new)
    sync_folder(new.parent)
    if old.parent != new.parent:
        sync_folder(old.parent)


def swap_folders(new: Path, old: Path) -> None:
    """Put ``new`` into the place of ``old``, and ``old`` into that of ``new``.

    One step where the system can exchange names (Linux, most file systems); else
    there is a moment without ``old``, and a kill in it leaves ``NEW.aside``.
    """
    step("exchange", old)
    if not _exchange(new, old):
        aside = new.with_name(f"{new.name}{ASIDE_SUFFIX}")
        rename_folder(old, aside)
        rename_folder(new, old)
        rename_folder(aside, new)
    for folder in {old.parent, new.parent}:
        sync_folder(folder)


def _exchange(left: Path, right: Path) -> bool:
    """Exchange two names by renameat2(2); False where that is not to be had."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(left), here, os.fsencode(right), exchange) == 0)


def touch(path: Path) -> None:
    """Set a file's time to now, where it is there and may be changed; nothing depends on it."""
    with contextlib.suppress(OSError):
        os.utime(path, follow_symlinks=False)


def remove_link(link: Path) -> None:
    """Remove a symbolic link, durably, and nothing of what it points to.

    Raises
    ------
    OSError
        As the system says it.
    """
    step("remove", link)
    link.unlink(missing_ok=True)
    sync_folder(link.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours; what is already gone is fine."""
    step("remove", folder)
    shutil.rmtree(folder, ignore_errors=True)
