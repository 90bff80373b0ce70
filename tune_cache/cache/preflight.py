"""Whether the disk has room for a run, told before anything is decoded.

Conventions
-----------
Counted are the arrays of the stores and, until a store is published, the units
of its journal, by the tracks' expected lengths. A forecast errs by some per
cent; a disk that fills up all the same is a pause, and the rerun completes.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tune_cache.cache.ahead import count_work, store_n_bytes
from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.work import Job, Unit
from tune_cache.errors import StoreError

__all__ = ["bytes_to_come", "check_free", "check_room"]


def bytes_to_come(job: Job, plan: Sequence[Unit], *, dim: int) -> int:
    """Forecast what a job will still write.

    Parameters
    ----------
    dim
        Of the encoder's vectors.
    """
    tracks: list[PlannedTrack] = [track for unit in plan for track in unit]
    done = {
        track.track_id
        for index, unit in enumerate(plan)
        if job.is_done(index, unit)
        for track in job.needs(unit)
    }
    copied = {
        name: store.outcome_of(there, name).n_rows for name, (store, there) in job.copies.items()
    }
    work = count_work(tracks, job.spec, rows_copied=copied, done=done)
    ids = [track.track_id for track in tracks]
    store = store_n_bytes(job.spec, dim=dim, n_segments=work.n_segments, track_ids=ids)
    row = len(job.spec.poolings) * len(job.spec.layers) * dim * np.dtype(job.spec.dtype).itemsize
    return store + work.n_encode_segments * row


def check_room(
    jobs: Sequence[Job],
    plan: Sequence[Unit],
    *,
    dim: int,
    hint: str = "make room, name another place with --cache-dir, or keep fewer --layers",
) -> None:
    """Refuse a run that its disk has no room for.

    Parameters
    ----------
    hint
        What to do about it.

    Raises
    ------
    StoreError
        With what is needed and what is free.
    """
    if not jobs:
        return
    needed = sum(bytes_to_come(job, plan, dim=dim) for job in jobs)
    check_free(jobs[0].final.parent, needed, hint=hint)


def check_free(folder: Path, n_bytes: int, *, hint: str) -> None:
    """Refuse to write so much into a folder whose disk has no room for it.

    Raises
    ------
    StoreError
        With what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StoreError(
            f"about {n_bytes / 1e6:,.0f} MB will be written to {str(folder)!r}, "
            f"where {free / 1e6:,.0f} MB are free",
            hint=hint,
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
