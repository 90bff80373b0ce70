"""How much of a dataset is in the cache, told without audio or encoder.

Conventions
-----------
A track is *there* if a store has rows of it under its id, made from audio with
the hash that is known of its file now; a file whose hash is not known is taken
to be unchanged, as no audio is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tune_cache.cache.consistency import misplacement, place_of
from tune_cache.cache.layout import Layout, lock_path
from tune_cache.cache.locks import alone, claimed_units
from tune_cache.cache.notes import read_note, units_done
from tune_cache.cache.store import open_store
from tune_cache.errors import StoreError, StoreNotFoundError

__all__ = ["Progress", "progress_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One store, finished or not, and what it has of a dataset.

    Parameters
    ----------
    path
        Of the store, also where it is not finished.
    state
        ``complete`` has every track, ``partial`` some; ``damaged`` cannot be opened,
        or is another store than its name says; ``unfinished`` has a journal.
    n_there, n_failed, n_missing, n_changed
        Tracks of the dataset: with rows, failed, absent, there with other audio.
    units_done, units_planned, claims
        Of a journal; planned is None where its note is gone. Claims are unit to
        process, 0 for a process that the system does not name.
    is_worked_on
        Whether some process is at it now, as far as locks reach.
    dataset
        That a journal was begun for.
    problem
        Why a store cannot serve.
    """

    path: Path
    label: str
    state: Literal["complete", "partial", "damaged", "unfinished"]
    n_there: int = 0
    n_failed: int = 0
    n_missing: int = 0
    n_changed: int = 0
    units_done: int | None = None
    units_planned: int | None = None
    claims: Mapping[int, int] | None = None
    is_worked_on: bool = False
    dataset: str = ""
    problem: str = ""


def progress_of(
    layout: Layout, audio: Mapping[str, str], *, encoder: str, labels: Sequence[str] = ()
) -> list[Progress]:
    """Look at every store of an encoder that has some track of a dataset, and every journal.

    Parameters
    ----------
    audio
        Track id to sha256 of its file, empty where that is not known.
    labels
        Segment lengths, as names of stores have them; all if empty.
    """
    rows: list[Progress] = []
    folder = layout.v1 / encoder
    for path in layout.store_paths():
        label = path.name.removeprefix("seg").split("-")[0]
        if path.parent == folder and (not labels or label in labels):
            row = _of_store(path, label, audio)
            if row and (row.n_there or row.n_failed or row.n_changed or row.problem):
                rows.append(row)
    for work in sorted(folder.glob(".*.zarr.work")):
        final = work.with_name(work.name.removeprefix(".").removesuffix(".work"))
        label = final.name.removeprefix("seg").split("-")[0]
        if not final.exists() and (not labels or label in labels):
            rows.append(_of_journal(final, work, label, len(audio)))
    return rows


def _of_store(path: Path, label: str, audio: Mapping[str, str]) -> Progress | None:
    """What a store has; None if somebody removed it meanwhile."""
    try:
        store = open_store(path)
        here = dict(zip(store.track_ids, store.audio_sha256, strict=True))
        status = store.status
    except StoreNotFoundError:
        return None
    except StoreError as error:
        return Progress(path=path, label=label, state="damaged", problem=str(error))
    misplaced = misplacement(path, place_of(store) or path)
    if misplaced:
        problem = f"{str(path)!r} holds another store than its name says: it {misplaced}"
        return Progress(path=path, label=label, state="damaged", problem=problem)
    there = failed = changed = 0
    for name, sha256 in audio.items():
        if name not in here:
            continue
        if sha256 and here[name] and here[name] != sha256:
            changed += 1
        elif status[name] == "ok":
            there += 1
        else:
            failed += 1
    missing = len(audio) - there - failed - changed
    return Progress(
        path=path,
        label=label,
        state="partial" if missing or changed else "complete",
        n_there=there,
        n_failed=failed,
        n_missing=missing,
        n_changed=changed,
    )


def _of_journal(final: Path, work: Path, label: str, n_tracks: int) -> Progress:
    note = read_note(work)
    lock = lock_path(final)
    with alone(lock) as is_free:
        pass
    return Progress(
        path=final,
        label=label,
        state="unfinished",
        n_missing=n_tracks,
        units_done=units_done(work),
        units_planned=note.n_units if note else None,
        claims=claimed_units(lock),
        is_worked_on=not is_free,
        dataset=note.dataset if note else "",
    )
