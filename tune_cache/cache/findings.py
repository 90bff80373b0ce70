"""What a deep look at a store found: damaged files, and whose vectors they put in doubt.

Conventions
-----------
A finding names a file inside the store and says what is wrong with it as a predicate.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tune_cache.cache.salvage import Salvage
from tune_cache.errors import StoreError

__all__ = ["UNREADABLE", "Finding", "Scope", "Verification", "with_tracks"]

Scope = Literal["tracks", "store", "none"]
UNREADABLE = (StoreError, KeyError, TypeError, ValueError, IndexError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One damaged file.

    Parameters
    ----------
    file
        Its name inside the store; empty where the store as a whole is meant.
    problem
        A predicate.
    scope
        Whose vectors are in doubt: those of ``tracks``, of the whole ``store``,
        or ``none``: the file follows from others, or is not needed.
    tracks
        Their ids, as far as ids can be read.
    """

    file: str
    problem: str
    scope: Scope
    tracks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a deep look at a store found.

    Parameters
    ----------
    inode
        Of the folder, which tells it from one that takes its place later.
    findings
        One a damaged file; empty means that every byte is as written.
    store
        What can be read of the store; None if its attributes cannot.
    content_digest
        Over the values found; empty where some cannot be read.
    n_files, n_bytes, seconds
        Looked at, and for how long.
    """

    path: Path
    inode: int
    findings: tuple[Finding, ...]
    store: Salvage | None
    content_digest: str
    n_files: int
    n_bytes: int
    seconds: float

    @property
    def is_ok(self) -> bool:
        """Whether every byte is as written."""
        return not self.findings

    @property
    def is_trusted(self) -> bool:
        """Whether rows of tracks that no finding names can be relied on."""
        return self.store is not None and all(item.scope != "store" for item in self.findings)

    @property
    def tracks(self) -> tuple[str, ...]:
        """Ids of the tracks that damage touches, as far as ids can be read."""
        return tuple(sorted({name for finding in self.findings for name in finding.tracks}))


def with_tracks(findings: Iterable[Finding], store: Salvage | None) -> tuple[Finding, ...]:
    """Name all tracks where a finding puts all in doubt, if ids can be read."""
    names: tuple[str, ...] = ()
    with contextlib.suppress(*UNREADABLE):
        names = store.track_ids if store is not None else ()
    found = []
    for item in findings:
        is_unknown = item.scope == "tracks" and not item.tracks
        if item.scope == "store" or is_unknown:
            item = dataclasses.replace(item, scope="store", tracks=names)
        found.append(item)
    return tuple(found)
