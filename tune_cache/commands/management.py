"""``tune cache status``, ``du``, ``rm`` and ``prune``: what is there, and what may go."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tune_cache.cache.holds import holders
from tune_cache.cache.layout import Layout, lock_path
from tune_cache.cache.locks import alone
from tune_cache.cache.removal import remove_folder, remove_store, said_holders
from tune_cache.cache.repair import clean_after
from tune_cache.cache.status import Progress, progress_of
from tune_cache.cache.store import open_store
from tune_cache.cache.usage import Kind, is_orphan, items_of, last_use, size_of
from tune_cache.commands.caches import MARKS, store_path
from tune_cache.commands.context import Length, lengths, open_context, several
from tune_cache.datasets.base import Dataset
from tune_cache.errors import StoreError, UsageError
from tune_cache.reports.results import newest_use

__all__ = [
    "Removal",
    "StatusReport",
    "Usage",
    "cache_du",
    "cache_prune",
    "cache_rm",
    "cache_status",
    "parse_age",
]

AGES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """What ``tune cache status`` found.

    Parameters
    ----------
    dataset
        That was asked about.
    encoder
        Whose stores were looked at.
    rows
        One a store or journal.
    n_known
        Tracks whose audio is known to be as it was; the others' was not looked at.
    """

    dataset: Dataset
    encoder: str
    rows: tuple[Progress, ...]
    n_known: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One line of ``tune cache du``.

    Parameters
    ----------
    kind
        ``store``, ``journal``, ``repair``, ``building``, ``removing``, ``results``,
        ``inventory``, ``datasets`` or ``other``.
    is_orphan
        Whether it is the remains of work that nobody does any more.
    """

    kind: str
    encoder: str
    name: str
    n_bytes: int
    n_files: int
    is_orphan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Something that was removed, or would be.

    Parameters
    ----------
    why
        It was chosen.
    is_removed
        False where nothing was done: without ``yes``, or with a ``problem``.
    """

    path: Path
    kind: str
    n_bytes: int
    why: str
    is_removed: bool = False
    problem: str = ""


def cache_status(
    dataset: str | Path | None = None,
    *,
    seg: Length | Sequence[Length] = (),
    encoder: str | None = None,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
) -> StatusReport:
    """Say how much of a dataset is in the cache, without reading audio or loading an encoder.

    Nothing is written.

    Parameters
    ----------
    dataset
        As for :func:`~tune_cache.commands.extract.extract`.
    seg
        Segment lengths; all if empty.
    encoder
        The dataset's own if None.
    """
    context = open_context(cache_dir)
    loaded = context.dataset(dataset, data_root=data_root, allow_outside_root=allow_outside_root)
    name = context.setting("encoder", encoder, loaded.encoder)
    with context.inventory(read_only=True) as inventory:
        known = inventory.remembered(track.path for track in loaded.tracks)
    audio = {
        track.track_id: known[track.path].sha256 if track.path in known else ""
        for track in loaded.tracks
    }
    labels = [length if length == "full" else f"{length:.6g}" for length in lengths(several(seg))]
    rows = progress_of(context.layout, audio, encoder=name, labels=labels)
    return StatusReport(
        dataset=loaded, encoder=name, rows=tuple(rows), n_known=sum(map(bool, audio.values()))
    )


def cache_du(*, cache_dir: Path | str | None = None) -> list[Usage]:
    """Say what takes how much room: the largest first within each kind."""
    layout = open_context(cache_dir).layout
    rows = [
        Usage(
            kind=item.kind,
            encoder=item.path.parent.name,
            name=item.path.name,
            n_bytes=item.n_bytes,
            n_files=item.n_files,
            is_orphan=is_orphan(item),
        )
        for item in items_of(layout)
    ]
    for kind, path in (
        ("results", layout.results_db),
        ("inventory", layout.audio_db),
        ("datasets", layout.datasets),
    ):
        if path.exists():
            n_bytes, n_files, _ = size_of(path)
            rows.append(
                Usage(kind=kind, encoder="", name=path.name, n_bytes=n_bytes, n_files=n_files)
            )
    order = ["store", "journal", "repair", "building", "removing", "other"]
    kinds = {kind: place for place, kind in enumerate([*order, "results", "inventory", "datasets"])}
    return sorted(rows, key=lambda row: (kinds[row.kind], row.encoder, -row.n_bytes, row.name))


def cache_rm(
    store: str | Path | Sequence[str | Path],
    *,
    yes: bool = False,
    cache_dir: Path | str | None = None,
) -> list[Removal]:
    """Remove stores, except those that somebody reads.

    Parameters
    ----------
    store
        Paths, names, or beginnings of names.
    yes
        Do it; otherwise only say what would be done.

    Raises
    ------
    UsageError
        If a path is no store of ours.
    """
    layout = open_context(cache_dir).layout
    names = [store] if isinstance(store, str | Path) else list(store)
    paths = list(dict.fromkeys(store_path(name, layout) for name in names))
    for path in paths:
        _check_ours(path, layout)
    return [_removed(path, "store", "it was named", yes=yes) for path in paths]


def _check_ours(path: Path, layout: Layout) -> None:
    """Refuse to remove a folder that may be somebody else's."""
    is_in_cache = path.parent.parent == layout.v1
    has_marks = all((path / mark).is_file() for mark in MARKS)
    if not (is_in_cache or has_marks):
        raise UsageError(
            f"{str(path)!r} is not in the cache, and no whole store either",
            hint="remove it by hand if that is what you want",
        )


def cache_prune(
    *,
    older_than: str | float | None = None,
    unused: bool = False,
    orphans: bool = False,
    yes: bool = False,
    cache_dir: Path | str | None = None,
) -> list[Removal]:
    """Remove what nobody needs any more; never a store that somebody reads.

    Parameters
    ----------
    older_than
        An age, as ``30d``, ``12h`` or seconds. Without ``orphans`` it chooses stores
        that were neither made, found, read nor probed since; otherwise it is asked
        of all that the other two choose.
    unused
        Stores that no saved result comes from, and that nobody has read or found
        since they were made (or for ``older_than``).
    orphans
        Journals and unfinished folders that nobody works on.
    yes
        Do it; otherwise only say what would be done.

    Raises
    ------
    UsageError
        If nothing says what to remove.
    """
    if older_than is None and not unused and not orphans:
        raise UsageError(
            "nothing says what to remove",
            hint="give --orphans, --unused, --older-than 30d, or several of them",
        )
    seconds = None if older_than is None else parse_age(older_than)
    layout = open_context(cache_dir).layout
    with_stores = unused or not orphans
    used = newest_use(layout.results_db) if with_stores else {}
    found = []
    for item in items_of(layout):
        if item.kind == "store" and with_stores:
            try:
                why = _why_unneeded(item.path, used, seconds, unused=unused)
            except FileNotFoundError:
                continue  # somebody else removed it
        elif orphans and is_orphan(item, older_than_seconds=seconds):
            why = "nobody works on it"
        else:
            continue
        if why:
            found.append(_removed(item.path, item.kind, why, yes=yes, store=item.store))
    return found


def _why_unneeded(
    path: Path, used: Mapping[str, str], seconds: float | None, *, unused: bool
) -> str:
    """Say why a store is not needed, or nothing if it may be."""
    made, read = last_use(path)
    try:
        store = open_store(path)
    except StoreError:
        return ""  # damaged: to be repaired, or removed by name
    result = used.get(store.content_digest)
    probed = datetime.fromisoformat(result).timestamp() if result else None
    newest = max(filter(None, (made, read, probed)))
    age = time.time() - newest
    if seconds is not None and age < seconds:
        return ""
    if unused and (result or (seconds is None and read is not None)):
        return ""
    days = f"last used {age / 86400:.1f} days ago"
    return f"no result comes from it, {days}" if unused else days


def parse_age(value: str | float) -> float:
    """Read an age in seconds.

    Examples
    --------
    >>> parse_age("30d"), parse_age("1.5 h"), parse_age(10)
    (2592000.0, 5400.0, 10.0)
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)\s*", str(value))
    if match is None:
        raise UsageError(f"age is {value!r}, expected a duration", hint="for example 30d or 12h")
    return float(match[1]) * AGES[match[2]]


def _removed(path: Path, kind: Kind, why: str, *, yes: bool, store: Path | None = None) -> Removal:
    """Remove one thing, or say what would be."""
    n_bytes = size_of(path)[0]
    if path.is_symlink():
        why += f"; it is a link, and what it points to is left at {os.path.realpath(path)!r}"
    problem = ""
    if not yes:
        problem = said_holders(path) if kind == "store" and holders(path) else ""
    elif kind == "store":
        problem = remove_store(path)
    elif kind == "removing":
        problem = remove_folder(path)
    else:
        with alone(lock_path(store or path)) as is_free:
            if not is_free:
                problem = "is being worked on"
            elif kind == "repair":
                _, problem = clean_after(store or path)
            else:
                problem = remove_folder(path)
    return Removal(
        path=path,
        kind=kind,
        n_bytes=n_bytes,
        why=why,
        is_removed=yes and not problem,
        problem=problem,
    )
