"""Which tracks a damaged file has that keeps a store from opening.

Conventions
-----------
Whatever can be read of the store is; nothing here raises because more of it is damaged.
"""

from __future__ import annotations

from pathlib import Path

from tune_cache.cache.consistency import is_shard, scope_of
from tune_cache.cache.findings import UNREADABLE
from tune_cache.cache.gather import tracks_between
from tune_cache.cache.holds import hold_store
from tune_cache.cache.listing import parse_object, read_listing
from tune_cache.cache.shards import SHARD_ROWS
from tune_cache.cache.store import Store

__all__ = ["readable_part", "tracks_hit"]

NOT_TOLD = (OSError, RecursionError, *UNREADABLE)


def readable_part(path: Path) -> Store | None:
    """A store whose files are not looked at before they are read; None if it tells nothing.

    Reading from it raises as from any store.
    """
    try:
        files = read_listing(hold_store(path))
        group = parse_object(path / "zarr.json", files.read(path / "zarr.json"))
        return Store(path, group["attributes"], files)
    except NOT_TOLD:
        return None


def tracks_hit(path: Path, file: str) -> tuple[str, ...]:
    """Ids of the tracks whose vectors a damaged file puts in doubt, as far as they can be read.

    Parameters
    ----------
    path
        The store.
    file
        Name of the damaged file inside it.
    """
    store, scope = readable_part(path), scope_of(file)
    if store is None or scope == "none":
        return ()
    try:
        if not is_shard(file):
            return store.track_ids
        start = int(file.partition("/c/")[2].partition("/")[0]) * SHARD_ROWS
        stop = min(start + SHARD_ROWS, store.n_segments)
        return tracks_between(store.track_ids, store.offset, start, stop)
    except NOT_TOLD:
        return ()
