"""What lies in a cache: stores, journals, remains; how large, how old, in whose hands.

Conventions
-----------
Sizes are those of files, not of blocks. A *remain* is a folder that work on a
store leaves when it is interrupted. It is an orphan if nobody works on that
store: on a local disk the locks say so; on a network file system, where locks
may not reach other machines, it must also have been quiet for an hour.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tune_cache.cache.layout import STORE_SUFFIX, Layout, lock_path
from tune_cache.cache.locks import alone

__all__ = ["Item", "Kind", "is_orphan", "items_of", "last_use", "size_of"]

Kind = Literal["store", "journal", "building", "repair", "removing", "other"]

QUIET_SECONDS = 3600.0
MOUNTS = Path("/proc/self/mounts")
# of one machine: its locks are seen by everybody who can reach them
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "bcachefs"}
HIDDEN = re.compile(r"\.(?P<store>.+\.zarr)\.(?:.+\.)?(?P<kind>work|repair|building|removing)")
KINDS: dict[str, Kind] = {
    "work": "journal",
    "repair": "repair",
    "building": "building",
    "removing": "removing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing in a cache folder.

    Parameters
    ----------
    store
        The store it is, or belongs to; its own path for other things.
    newest
        When something in it changed last, in seconds since the epoch.
    """

    kind: Kind
    path: Path
    store: Path
    n_bytes: int
    n_files: int
    newest: float

    @property
    def name(self) -> str:
        """Encoder and name."""
        return f"{self.path.parent.name}/{self.path.name}"


def size_of(path: Path) -> tuple[int, int, float]:
    """Bytes, files and newest change of a file or a folder; links are not followed."""
    n_bytes = n_files = 0
    newest = 0.0
    folders = [path]
    while folders:
        place = folders.pop()
        try:
            status = place.lstat()
            newest = max(newest, status.st_mtime)
            if place.is_dir() and not place.is_symlink():
                folders += [Path(entry.path) for entry in os.scandir(place)]
            else:
                n_bytes += status.st_size
                n_files += 1
        except OSError:
            continue  # gone meanwhile, or not ours to see
    return n_bytes, n_files, newest


def items_of(layout: Layout) -> Iterator[Item]:
    """Everything below the encoders' folders, by name; lock files are left out."""
    apart = {layout.datasets, layout.v1 / "aggregators"}
    if not layout.v1.is_dir():
        return
    for folder in sorted(layout.v1.iterdir()):
        if not folder.is_dir() or folder.is_symlink() or folder in apart:
            continue
        for path in sorted(folder.iterdir()):
            if path.suffix == ".lock" and path.name.startswith("."):
                continue
            kind, store = _kind(path)
            n_bytes, n_files, newest = size_of(path)
            yield Item(
                kind=kind, path=path, store=store, n_bytes=n_bytes, n_files=n_files, newest=newest
            )


def _kind(path: Path) -> tuple[Kind, Path]:
    match = HIDDEN.fullmatch(path.name)
    if match and (path.is_dir() or path.is_symlink()):
        return KINDS[match["kind"]], path.with_name(match["store"])
    is_store = path.name.endswith(STORE_SUFFIX) and not path.name.startswith(".")
    return ("store" if is_store and path.is_dir() else "other"), path


def is_orphan(item: Item, *, older_than_seconds: float | None = None) -> bool:
    """Whether a thing is the remains of work that nobody does any more.

    Parameters
    ----------
    older_than_seconds
        How long nothing in it must have changed. None asks for nothing on a local
        disk, and for an hour elsewhere.
    """
    if item.kind in ("store", "other"):
        return False
    if item.kind == "repair" and not item.store.exists():
        return False  # the only copy there is: `tune cache repair` puts it back
    if older_than_seconds is None:
        older_than_seconds = 0.0 if _is_local(item.path) else QUIET_SECONDS
    if time.time() - item.newest < older_than_seconds:
        return False
    if item.kind == "removing":
        return True
    with alone(lock_path(item.store)) as is_free:
        return is_free


def _is_local(path: Path) -> bool:
    """Whether a path lies on a disk of this machine; False where that cannot be told."""
    try:
        lines = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    place = path.resolve()
    best, kind = Path(), ""
    for line in lines:
        words = line.split()
        if len(words) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[1]))
        if place.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, words[2]
    return kind in LOCAL


def last_use(store: Path) -> tuple[float, float | None]:
    """When a store was made, and when it was last read or found; None if never since.

    Reading leaves its time on the lock file, where the reader may write it.
    """
    try:
        made = (store / "COMPLETE").lstat().st_mtime
    except OSError:
        made = store.lstat().st_mtime
    try:
        used = lock_path(store).lstat().st_mtime
    except OSError:
        return made, None
    return made, used if used > made else None
