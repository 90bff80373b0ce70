"""Opening files that may be anybody's: regular ones only, uncompressed zips only.

Conventions
-----------
Nothing is allocated by what a file claims before its size was compared with it.
A zip has its directory at its very end, without a comment, so that every reader
finds the same one; its members are stored, never deflated.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tune_cache.errors import StoreCorruptError, StoreError, StoreNotFoundError, printable

__all__ = ["damage", "open_file", "open_zip"]

LARGEST_DIRECTORY_BYTES = 1 << 16
LONGEST_REASON = 300  # of what a library says, which may quote the file
_END, _LOCATOR, _END_64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
# what readers of damaged files raise
_RAISED: tuple[type[Exception], ...] = (
    OSError, ValueError, LookupError, TypeError, OverflowError, EOFError, RuntimeError,
    MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
_END_BYTES, _LOCATOR_BYTES, _END_64_BYTES = 22, 20, 56


@contextlib.contextmanager
def open_file(path: Path, *, follow: bool = True) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file, and nothing else, for reading; gives it and its size.

    Raises
    ------
    StoreNotFoundError
        If there is none.
    StoreError
        If it is a pipe or device, or cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError as error:
        raise StoreNotFoundError(f"there is no file {str(path)!r}") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"file {str(path)!r} cannot be opened: {error}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise StoreError(f"{str(path)!r} is a folder, pipe or device, expected a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file, facts.st_size


@contextlib.contextmanager
def damage(place: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a library raises on a damaged file into a sentence that names it."""
    try:
        yield
    except StoreError:
        raise
    except (*_RAISED, *kinds) as error:
        what = printable(error)[:LONGEST_REASON] or type(error).__name__
        raise StoreCorruptError(
            f"file {place!r} cannot be read: {what}",
            hint="it is damaged or none of ours; export the store again",
            path=place,
        ) from error


def _check_directory(file: BinaryIO, n_bytes: int, place: str) -> None:
    """Refuse a directory that is large, not at the end, or that readers could differ about."""
    n_tail = min(n_bytes, _END_BYTES + _LOCATOR_BYTES + _END_64_BYTES)
    file.seek(n_bytes - n_tail)
    tail = file.read(n_tail).rjust(_END_BYTES + _LOCATOR_BYTES + _END_64_BYTES, b"\0")
    end, locator = tail[-_END_BYTES:], tail[_END_64_BYTES:-_END_BYTES]
    begins = n_bytes - _END_BYTES
    size, offset, comment = struct.unpack("<LLH", end[12:])
    if locator.startswith(_LOCATOR):
        begins -= _LOCATOR_BYTES + _END_64_BYTES
        size, offset = struct.unpack("<QQ", tail[40:_END_64_BYTES])
        if not tail.startswith(_END_64) or struct.unpack("<Q", locator[8:16]) != (begins,):
            size = -1
    found = end.startswith(_END) and not comment and offset + size == begins
    if not found or not 0 < size <= LARGEST_DIRECTORY_BYTES:
        raise StoreCorruptError(
            f"zip {place!r} has no small directory at its very end: it is cut off, or not ours",
            hint="export it again",
            path=place,
        )


@contextlib.contextmanager
def open_zip(
    file: BinaryIO, n_bytes: int, place: str
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open a zip whose members are stored as they are; gives them by name.

    Raises
    ------
    StoreCorruptError
        If a member is compressed, encrypted, named twice, or larger than the file.
    """
    with damage(place):
        _check_directory(file, n_bytes, place)
        archive = zipfile.ZipFile(file)
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 0x1
            if not plain or member.file_size != member.compress_size:
                what = "is compressed or encrypted, expected stored bytes"
            elif member.filename in members:
                what = "is there twice"
            else:
                members[member.filename] = member
                continue
            raise StoreCorruptError(
                f"member {printable(member.filename)!r} of {place!r} {what}", path=place
            )
        if sum(member.file_size for member in members.values()) > n_bytes:
            raise StoreCorruptError(
                f"members of {place!r} claim more bytes than its {n_bytes}", path=place
            )
    with archive:
        yield archive, members
