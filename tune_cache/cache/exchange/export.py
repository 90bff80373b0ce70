"""From a finished store to one file, streamed and checked on the way.

Conventions
-----------
Rows are read a shard at a time, so a store of any size needs the memory of one.
The content digest is computed from what is written; a store that is not what it
says gives no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from tune_cache.cache import disk
from tune_cache.cache.exchange.formats import Format
from tune_cache.cache.exchange.header import ARRAYS, Array, Content, make_header
from tune_cache.cache.gather import read_rows, tracks_between
from tune_cache.cache.shards import SHARD_ROWS, read_small
from tune_cache.cache.store import Store
from tune_cache.errors import StoreCorruptError, UsageError

__all__ = ["content_of", "export_file"]


def content_of(store: Store) -> Content:
    """All that a store holds; rows are read when asked for."""
    place = str(store.path)
    n_tracks, n_segments = store.n_tracks, store.n_segments
    shapes: dict[str, tuple[int, ...]] = {}
    arrays: dict[str, Array] = {}
    for name in sorted(ARRAYS, key=lambda name: name.endswith("_utf8")):  # offsets before texts
        if name.endswith("_utf8"):
            shape: tuple[int, ...] = (int(arrays[name.removesuffix("utf8") + "offset"][-1]),)
        elif name.startswith("segments/"):
            shape = (n_segments,)
        else:
            shape = (n_tracks + 1,) if name.endswith("offset") else (n_tracks,)
        shapes[name] = (n_tracks, 32) if name == "tracks/audio_sha256" else shape
        arrays[name] = read_small(store.path / name, ARRAYS[name], shapes[name], files=store.files)
    header = make_header(store.attrs, store.ledger, arrays, place)

    def blocks(pooling: str) -> Iterator[Array]:
        layers = range(len(store.layers))
        for start in range(0, n_segments, SHARD_ROWS):
            yield read_rows(
                store.path / "embeddings" / pooling,
                np.arange(start, min(start + SHARD_ROWS, n_segments)),
                layers,
                shape=header.rows_shape,
                dtype=store.spec.dtype,
                files=store.files,
                tracks=partial(tracks_between, store.track_ids, store.offset),
            )

    return Content(header=header, arrays=arrays, blocks=blocks)


class _Digest:
    """The content digest, fed in its order: poolings, then small arrays."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.digest = hashlib.sha256()

    def rows(self, pooling: str) -> Iterator[Array]:
        self.digest.update(f"embeddings/{pooling}\0".encode())
        for block in self.content.blocks(pooling):
            self.digest.update(np.ascontiguousarray(block).tobytes())
            yield block

    def check(self, arrays: Mapping[str, Array], store: Store) -> None:
        for name in ARRAYS:
            if not name.startswith("tracks/message"):
                self.digest.update(f"{name}\0".encode() + arrays[name].tobytes())
        if self.digest.hexdigest() != store.content_digest:
            raise StoreCorruptError(
                f"store {str(store.path)!r} does not hold the values it was written with: "
                f"content digest {self.digest.hexdigest()}, expected {store.content_digest}",
                hint="move it away and extract or import it again",
                path=str(store.path),
            )


def export_file(store: Store, out: Path, form: Format, *, force: bool = False) -> int:
    """Write a store into one file, which appears complete or not at all.

    Parameters
    ----------
    force
        Replace a file that is there.

    Returns
    -------
    its length in bytes.

    Raises
    ------
    UsageError
        If something is there, or the place is no place for a file.
    StoreCorruptError
        If the store is damaged; no file is written then.
    """
    _check_place(store, out, force)
    content = content_of(store)
    digest = _Digest(content)
    with disk.appearing_durably(out) as temporary:

        def rows(pooling: str) -> Iterator[Array]:
            source = content.blocks if form.side_by_side else digest.rows
            for block in source(pooling):
                disk.step("write", temporary)
                yield block

        form.write(temporary, Content(header=content.header, arrays=content.arrays, blocks=rows))
        if form.side_by_side:  # its order is not that of the digest
            for pooling in store.poolings:
                for _ in digest.rows(pooling):
                    pass
        digest.check(content.arrays, store)
        _check_place(store, out, force)
        return temporary.stat().st_size


def _check_place(store: Store, out: Path, force: bool) -> None:
    if out.resolve().is_relative_to(store.path.resolve()):
        raise UsageError(f"--out {str(out)!r} lies inside the store")
    if out.is_dir() or (not force and (out.exists() or out.is_symlink())):
        raise UsageError(
            f"--out {str(out)!r} exists" + (" and is a folder" if out.is_dir() else ""),
            hint="give the name of a new file" if out.is_dir() else "--force replaces it",
        )
    if not out.parent.is_dir():
        raise UsageError(f"folder {str(out.parent)!r} of --out does not exist", hint="create it")
