"""Which bytes an audio file holds, remembered so that a file is hashed once.

Conventions
-----------
A digest is trusted while size, mtime, ctime, inode and device are as they were
when it was taken, and if the file was at least two seconds old then (a file
can change twice within one tick of a coarse clock). Losing this database costs
time, never correctness: a damaged one is set aside and made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tune_cache.audio import header_seconds
from tune_cache.audio.containers import open_regular
from tune_cache.errors import AudioError

__all__ = ["AudioFile", "Inventory", "stamp_of"]

YOUNGEST_TRUSTED_SECONDS = 2.0
BLOCK_BYTES = 1 << 20
REMEMBER_EVERY = 500  # an interrupted pass over a large collection is not lost
# with no header to go by, a file is taken to hold this much a second (a 128 kbit/s mp3)
BYTES_PER_SECOND = 16_000

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS audio (
    path BLOB PRIMARY KEY, stamp TEXT NOT NULL, sha256 TEXT NOT NULL, seconds REAL NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFile:
    """What is known of a file before it is decoded.

    Parameters
    ----------
    sha256
        Of its bytes.
    n_bytes
        Its size.
    seconds
        By its header, else guessed from its size; for planning only.
    stamp
        Size, times, inode and device when it was read.
    """

    sha256: str
    n_bytes: int
    seconds: float
    stamp: str = ""


def stamp_of(path: Path) -> str:
    """The stamp a file has now, empty where there is none."""
    try:
        return _stamp(path.stat())
    except (OSError, ValueError):
        return ""


def _stamp(status: os.stat_result) -> str:
    fields = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return ":".join(map(str, fields))


def read_file(path: Path, known: Callable[[Path, str], AudioFile | None]) -> tuple[AudioFile, str]:
    """Hash a file unless its stamp is known; returns it with the stamp to remember.

    The stamp is empty where it must not be remembered: the file is too young,
    or changed while it was read.
    """
    with open_regular(path) as descriptor:
        before = os.fstat(descriptor)
        stamp = _stamp(before)
        found = known(path, stamp)
        if found is not None:
            return found, stamp
        digest = hashlib.sha256()
        try:
            while block := os.read(descriptor, BLOCK_BYTES):
                digest.update(block)
        except OSError as error:
            raise AudioError(f"cannot be read: {error.strerror}", reason="unreadable") from error
        after = os.fstat(descriptor)
    seconds = header_seconds(path)
    if seconds is None or not 0.0 < seconds < 1e6:
        seconds = before.st_size / BYTES_PER_SECOND
    result = AudioFile(
        sha256=digest.hexdigest(), n_bytes=before.st_size, seconds=seconds, stamp=stamp
    )
    newest = max(before.st_mtime, before.st_ctime)
    settled = time.time() - newest > YOUNGEST_TRUSTED_SECONDS and _stamp(after) == stamp
    return result, stamp if settled else ""


class Inventory:
    """The database of known files; use as a context manager.

    Parameters
    ----------
    path
        The SQLite file; created where absent.
    rehash
        Read every file again, whatever is remembered.
    read_only
        Write nothing: one that is absent is empty, a damaged one stays.
    """

    def __init__(self, path: Path, *, rehash: bool = False, read_only: bool = False) -> None:
        self.path = path
        self.rehash = rehash
        self.read_only = read_only
        self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            if not self.read_only:
                return self._open()
            if self.path.exists():
                return self._open_to_read()
        except (sqlite3.OperationalError, OSError) as error:
            logger.warning("inventory %s is not used: %s", self.path, error)
        except sqlite3.DatabaseError as error:
            if self.read_only:
                logger.warning("inventory %s is not used: %s", self.path, error)
                return self._empty()
            with contextlib.suppress(OSError, sqlite3.Error):
                self.path.replace(self.path.with_suffix(".damaged"))
                return self._open()
        return self._empty()

    def _empty(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:")
        connection.execute(_SCHEMA)
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
        return _looked_into(connection)

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=60.0)
        return _looked_into(connection, _SCHEMA)

    def __enter__(self) -> Inventory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def file(self, path: Path) -> AudioFile:
        """Describe one file, hashing it only if it is new or changed.

        Raises
        ------
        AudioError
            If it cannot be read; ``reason`` says why.
        """
        ((_, result),) = self.files([path])  # to its end: that is where it remembers
        if isinstance(result, AudioError):
            raise result
        return result

    def files(self, paths: Iterable[Path]) -> Iterator[tuple[Path, AudioFile | AudioError]]:
        """Describe many files, in the order given; errors are returned, not raised."""
        paths = list(paths)
        remembered = {} if self.rehash else self._remembered(paths)

        def known(path: Path, stamp: str) -> AudioFile | None:
            row = remembered.get(os.fsencode(path))
            if row is None or row[0] != stamp:
                return None
            n_bytes = int(stamp.partition(":")[0])
            return AudioFile(sha256=row[1], n_bytes=n_bytes, seconds=row[2], stamp=stamp)

        def describe(path: Path) -> tuple[AudioFile | AudioError, str]:
            try:
                return read_file(path, known)
            except AudioError as error:
                return error, ""

        fresh: list[tuple[bytes, str, str, float]] = []
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for path, (result, stamp) in zip(paths, pool.map(describe, paths), strict=True):
                key = os.fsencode(path)
                stale = remembered.get(key, ("",))[0] != stamp
                if isinstance(result, AudioFile) and stamp and stale:
                    fresh.append((key, stamp, result.sha256, result.seconds))
                if len(fresh) >= REMEMBER_EVERY:
                    self._remember(fresh)
                    fresh = []
                yield path, result
        self._remember(fresh)

    def remembered(self, paths: Iterable[Path]) -> dict[Path, AudioFile]:
        """What is known of files whose stamp is as it was; none is opened."""
        paths = list(paths)
        rows = self._remembered(paths)
        found = {}
        for path in paths:
            stamp, sha256, seconds = rows.get(os.fsencode(path), ("", "", 0.0))
            if stamp and stamp == stamp_of(path):
                n_bytes = int(stamp.partition(":")[0])
                found[path] = AudioFile(
                    sha256=sha256, n_bytes=n_bytes, seconds=seconds, stamp=stamp
                )
        return found

    def holding(self, sha256s: Iterable[str]) -> dict[str, tuple[Path, AudioFile]]:
        """Find files that hold some audio, among all that were ever looked at.

        Each is read again unless its stamp is as it was, so what is found is so now.
        """
        wanted = set(sha256s)
        places: list[Path] = []
        with contextlib.suppress(sqlite3.DatabaseError):
            rows = self._connection.execute("SELECT path, sha256 FROM audio ORDER BY path")
            places = [Path(os.fsdecode(path)) for path, sha256 in rows if sha256 in wanted]
        found: dict[str, tuple[Path, AudioFile]] = {}
        for path, file in self.files(places):
            if isinstance(file, AudioFile) and file.sha256 in wanted:
                found.setdefault(file.sha256, (path, file))
        return found

    def _remembered(self, paths: list[Path]) -> Mapping[bytes, tuple[str, str, float]]:
        rows: dict[bytes, tuple[str, str, float]] = {}
        with contextlib.suppress(sqlite3.DatabaseError):  # what cannot be read is hashed again
            self._look_up(paths, rows)
        return rows

    def _look_up(self, paths: list[Path], rows: dict[bytes, tuple[str, str, float]]) -> None:
        for start in range(0, len(paths), 500):
            keys = [os.fsencode(path) for path in paths[start : start + 500]]
            marks = ",".join("?" * len(keys))
            query = f"SELECT path, stamp, sha256, seconds FROM audio WHERE path IN ({marks})"
            for path, stamp, sha256, seconds in self._connection.execute(query, keys):
                rows[path] = (stamp, sha256, seconds)

    def _remember(self, rows: list[tuple[bytes, str, str, float]]) -> None:
        """Keep what was found; a busy or full disk only costs the next run time."""
        if not rows:
            return
        with contextlib.suppress(sqlite3.DatabaseError), self._connection:
            self._connection.executemany("REPLACE INTO audio VALUES (?, ?, ?, ?)", rows)


def _looked_into(connection: sqlite3.Connection, schema: str = "") -> sqlite3.Connection:
    """Close a database that is none, or another's."""
    try:
        connection.execute(schema)
        connection.execute("SELECT path, stamp, sha256, seconds FROM audio LIMIT 1").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
