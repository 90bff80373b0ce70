"""The files that a store has, as it lists them, and what to do where they differ.

Conventions
-----------
``COMPLETE`` vouches for ``files.json``, which holds length and sha256 of every
file, and the crc32c of every chunk of a shard. Lengths are compared whenever a
store is opened, the rest when a byte is read. Hashes are integrity, not
authenticity: whoever can write the store can write the hashes.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tune_cache.cache.holds import Hold, hold_store, nothing_at
from tune_cache.cache.layout import cache_of
from tune_cache.errors import StoreCorruptError, printable, quoted
from tune_cache.specs import is_imported

__all__ = [
    "Files",
    "Listed",
    "corrupt",
    "mending",
    "named",
    "open_files",
    "parse_listing",
    "parse_object",
    "problem_of",
    "remedy",
    "removing",
]

LARGEST_JSON_BYTES = 64 << 20  # some 100,000 shards
STORE_SUFFIX = ".zarr"


def remedy(path: Path) -> str:
    """Say which commands look into and mend the store that a file belongs to.

    Examples
    --------
    >>> print(remedy(Path("/c/v1/mel/seg10-a-b.zarr/tracks/offset/c/0")))
    see what is hit: tune cache verify /c/v1/mel/seg10-a-b.zarr
    mend it: tune cache repair /c/v1/mel/seg10-a-b.zarr
    """
    store = _store_of(path) or path
    return f"see what is hit: tune cache verify {quoted(store.absolute())}\n{mending(store)}"


def mending(store: Path, *, is_copyable: bool = False) -> str:
    """Say which command mends a damaged store.

    Parameters
    ----------
    is_copyable
        Whether no vector is damaged; imported ones cannot be encoded again.

    Examples
    --------
    >>> print(mending(Path("/c/v1/mel/seg10-a-b.zarr")))
    mend it: tune cache repair /c/v1/mel/seg10-a-b.zarr
    """
    if is_imported(store.parent.name) and not is_copyable:
        return f"remove it, and import it again: {removing(store)}"
    return f"mend it: tune cache repair {quoted(store.absolute())}"


def removing(store: Path) -> str:
    """The command that removes a store; a damaged one only from the cache that it lies in.

    Examples
    --------
    >>> removing(Path("/c/v1/mel/seg10-a-b.zarr"))
    'tune cache rm /c/v1/mel/seg10-a-b.zarr --yes --cache-dir /c'
    """
    root = cache_of(store.absolute())
    place = "" if root is None else f" --cache-dir {quoted(root)}"
    return f"tune cache rm {quoted(store.absolute())} --yes{place}"


def _store_of(path: Path) -> Path | None:
    """The store that a file belongs to, by the names of the folders above it."""
    return next((p for p in (path, *path.parents) if p.suffix == STORE_SUFFIX), None)


def named(path: Path) -> str:
    """Name a file of a store, to begin a sentence with.

    Examples
    --------
    >>> named(Path("/c/v1/mel/seg10-a-b.zarr/tracks/offset/c/0"))
    "file 'tracks/offset/c/0' of store '/c/v1/mel/seg10-a-b.zarr'"
    """
    store = _store_of(path)
    if store is None:  # it was renamed
        return f"file {path.name!r} of {str(path.parent)!r}"
    return f"file {path.relative_to(store).as_posix()!r} of store {str(store)!r}"


def corrupt(path: Path, what: str, *, tracks: tuple[str, ...] = ()) -> StoreCorruptError:
    """Make the error of a damaged file."""
    return StoreCorruptError(what, hint=remedy(path), path=str(path), tracks=tracks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What ``files.json`` says of a file.

    Parameters
    ----------
    crc32c
        Of each chunk of a shard in the order of its index, 8 digits each; empty
        for other files and in stores written before it was listed.
    """

    n_bytes: int
    sha256: str
    crc32c: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files of a store: a hold to read them through, and what they must be.

    Parameters
    ----------
    hold
        Keeps the folder.
    listed
        Name to entry, of every file whose content matters to a vector.
    ledger
        The same of files beside them, not looked at when a store is opened.
    """

    hold: Hold
    listed: Mapping[str, Listed] = field(default_factory=dict)
    ledger: Mapping[str, Listed] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        """Name of a file inside the store."""
        return path.relative_to(self.hold.path).as_posix()

    def open(self, path: Path) -> int:
        """Open a file; the store may have been renamed since."""
        return self.hold.open(self.name(path))

    def crc32c(self, path: Path) -> str:
        """The checksums of a shard's chunks, empty where none are listed."""
        entry = self.listed.get(self.name(path))
        return entry.crc32c if entry else ""

    def read(self, path: Path) -> bytes:
        """Read a small file whole and compare it with its entry.

        Raises
        ------
        StoreCorruptError
            If it is not what is listed.
        OSError
            If it cannot be read.
        """
        name = self.name(path)
        entry = self.listed.get(name) or self.ledger.get(name)
        data = self.hold.read(name, entry.n_bytes if entry else LARGEST_JSON_BYTES)
        if entry and hashlib.sha256(data).hexdigest() != entry.sha256:
            raise corrupt(
                path,
                f"file {name!r} of store {str(self.hold.path)!r} is not the one that was written",
            )
        return data


def open_files(path: Path) -> Files:
    """Hold a store and compare the length of every file with its list.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    StoreError
        If another user keeps it, or a file of it, private.
    StoreCorruptError
        If a file is missing, linked, or of another length than listed; its tracks are
        named as far as they can be read.
    """
    hold = hold_store(path)
    try:
        hold.status("COMPLETE")
    except OSError as error:
        if path.suffix != STORE_SUFFIX:
            raise nothing_at(path) from error
        raise corrupt(
            path / "COMPLETE", f"store {str(path)!r} is not whole: it has no 'COMPLETE'"
        ) from error
    files = read_listing(hold)
    if "zarr.json" not in files.listed:
        raise corrupt(path / "files.json", f"'files.json' of store {str(path)!r} lists no store")
    for name, problem in differing_sizes(files).items():
        from tune_cache.cache.blame import tracks_hit  # which reads stores

        # raised unnamed: a name here would keep the store held until the next collection
        raise corrupt(
            path / name,
            f"file {name!r} of store {str(path)!r} {problem}",
            tracks=tracks_hit(path, name),
        )
    try:
        files.read(path / "zarr.json")
    except OSError as error:
        raise corrupt(
            path / "zarr.json", f"file 'zarr.json' of store {str(path)!r} cannot be read: {error}"
        ) from error
    return files


def read_listing(hold: Hold) -> Files:
    """Read ``files.json``, which ``COMPLETE`` vouches for.

    Raises
    ------
    StoreCorruptError
        If either is not as written, or a name leads outside the store.
    """
    path = hold.path
    complete = parse_object(path / "COMPLETE", _bytes_of(hold, "COMPLETE"))
    data = _bytes_of(hold, "files.json")
    listing = path / "files.json"
    if hashlib.sha256(data).hexdigest() != complete.get("files_sha256"):
        raise corrupt(
            listing,
            f"'files.json' of store {str(path)!r} is not the one that COMPLETE vouches for",
        )
    return Files(hold=hold, **parse_listing(listing, data))


def parse_listing(path: Path, data: bytes) -> dict[str, dict[str, Listed]]:
    """Read the text of ``files.json``: fields of :class:`Files`."""
    value = parse_object(path, data)
    try:
        sections = {
            section: {str(name): _entry(entry) for name, entry in entries.items()}
            for section, entries in (
                ("listed", value["files"]),
                ("ledger", value.get("ledger", {})),
            )
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"it has no entry {error}" if isinstance(error, KeyError) else error
        raise corrupt(path, f"{named(path)} cannot be read: {why}") from error
    for name in (name for section in sections.values() for name in section):
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name or not name:
            raise corrupt(path, f"{named(path)} names {printable(name)!r}, outside its store")
    return sections


def _entry(value: Mapping[str, Any]) -> Listed:
    return Listed(
        n_bytes=int(value["bytes"]),
        sha256=str(value["sha256"]),
        crc32c=str(value.get("crc32c", "")),
    )


def parse_object(path: Path, data: bytes) -> dict[str, Any]:
    """Read a JSON object of a store."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise corrupt(path, f"{named(path)} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise corrupt(path, f"{named(path)} holds no JSON object")
    return value


def _bytes_of(hold: Hold, name: str) -> bytes:
    try:
        return hold.read(name, LARGEST_JSON_BYTES)
    except OSError as error:
        raise corrupt(
            hold.path / name,
            f"file {name!r} of store {str(hold.path)!r} cannot be read: {error.strerror or error}",
        ) from error


def differing_sizes(files: Files) -> dict[str, str]:
    """Name to what is wrong, for files that a look at the folder shows to differ."""
    found: dict[str, str] = {}
    folders = {str(parent) for name in files.listed for parent in PurePosixPath(name).parents}
    for folder in sorted(folders - {"."}):
        problem = problem_of(files.hold, folder, None)
        if problem and problem != "is missing":  # its files are missing as well
            found[folder] = problem
    for name, entry in files.listed.items():
        problem = problem_of(files.hold, name, entry.n_bytes)
        if problem:
            found[name] = problem
    return found


def problem_of(hold: Hold, name: str, n_bytes: int | None) -> str:
    """What is wrong with a file, or with a folder if ``n_bytes`` is None.

    Raises
    ------
    StoreError
        If it may not be read, which is no damage.
    """
    try:
        status = hold.status(name)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be looked at: {error.strerror or error}"
    if stat.S_ISLNK(status.st_mode):
        return "is a link, which no store of ours has"
    if n_bytes is None:
        return "" if stat.S_ISDIR(status.st_mode) else "is no folder"
    if not stat.S_ISREG(status.st_mode):
        return f"is no regular file, expected one of {n_bytes} bytes"
    if status.st_size != n_bytes:
        return f"has {status.st_size} bytes, expected {n_bytes}"
    hold.check_readable(name)
    return ""
