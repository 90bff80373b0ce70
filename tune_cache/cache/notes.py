"""What an unfinished store is meant to become, for whoever looks at its journal.

Conventions
-----------
Nothing depends on a note: the journal is complete without. A note that is absent
or damaged only makes a journal nameless.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cache.cache.disk import write_durably
from tune_cache.cache.work import Job, Unit
from tune_cache.errors import StoreError
from tune_cache.specs import StoreSpec, canonical_json

__all__ = ["JournalNote", "read_note", "units_done", "write_note"]

NAME = "plan.json"
LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalNote:
    """Of an unfinished store.

    Parameters
    ----------
    dataset
        Its name when the journal was begun.
    collection
        Digest of ids and audio.
    n_tracks
        Of the whole store.
    n_units
        To be encoded; the others are copied or cannot be read.
    """

    dataset: str
    spec: StoreSpec
    collection: str
    n_tracks: int
    n_units: int


def write_note(job: Job, plan: Sequence[Unit], collection: str, dataset: str) -> None:
    """Leave a note in a journal, unless it is there."""
    note = canonical_json(
        {
            "dataset": dataset,
            "spec": job.spec.to_json(),
            "collection_digest": collection,
            "n_tracks": sum(len(unit) for unit in plan),
            "n_units": sum(bool(job.needs(unit)) for unit in plan),
        }
    ).encode()
    path = job.work / NAME
    try:
        is_there = not path.is_symlink() and path.read_bytes() == note
    except OSError:
        is_there = False
    if not is_there:
        write_durably(path, note, sync_parent=False)


def read_note(work: Path) -> JournalNote | None:
    """Read the note of a journal, if it has one."""
    path = work / NAME
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST_BYTES:
            return None
        value = json.loads(path.read_bytes())
        return JournalNote(
            dataset=str(value["dataset"]),
            spec=StoreSpec.from_json(value["spec"]),
            collection=str(value["collection_digest"]),
            n_tracks=int(value["n_tracks"]),
            n_units=int(value["n_units"]),
        )
    except (OSError, ValueError, KeyError, TypeError, StoreError):
        return None


def units_done(work: Path) -> int:
    """Units that lie in a journal; whether they check is seen when they are read."""
    return sum(1 for _ in (work / "units").glob("*.safetensors"))
