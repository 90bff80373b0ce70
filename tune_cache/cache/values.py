"""All values of a store, decoded once for what they hash to and for which rows are damaged.

Conventions
-----------
The content digest is over decoded values in a fixed order: every pooling's rows,
then the small arrays but the messages. One shard is held at a time.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.cache.findings import Finding
from tune_cache.cache.gather import Shard, all_finite
from tune_cache.cache.listing import Files, named
from tune_cache.cache.salvage import SMALL, Salvage
from tune_cache.cache.shards import (
    CHUNK_ROWS,
    SHARD_ROWS,
    check_metadata,
    embeddings_metadata,
    read_small,
    shard_name,
    small_metadata,
)
from tune_cache.errors import AudioError, StoreCorruptError, StoreError

__all__ = ["DIFFERS", "Values", "predicate_of"]

BLOCK_BYTES = 4 << 20
DIFFERS = "is not the one that was written"
NAMELESS = (StoreError, AudioError, ValueError, IndexError, OverflowError, MemoryError)


@dataclass(slots=True)
class _Decoded:
    """Values of a shard, its damaged blocks of 256 rows, and how the first of them is."""

    values: npt.NDArray[Any]
    bad: set[int] = field(default_factory=set)
    first: str = ""
    is_finite: bool = True


class Values:
    """One pass over the values of a store.

    Parameters
    ----------
    files
        Of the store.
    count
        Called with the number of bytes of each piece read.
    """

    def __init__(self, files: Files, count: Callable[[int], None]) -> None:
        self.files, self.count = files, count
        self.errors: list[StoreCorruptError] = []  # of small arrays
        self._digest = hashlib.sha256()
        self._is_whole = True

    def read_small(self, store: Salvage) -> dict[str, npt.NDArray[Any]]:
        """Read the small arrays that can be read; the others' errors are kept."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        lengths = {
            "segments": store.n_segments,
            "tracks": store.n_tracks,
            "tracks+1": store.n_tracks + 1,
        }
        # what ends an array of texts is read before it
        for name, (dtype, length) in sorted(SMALL.items(), key=lambda item: "/" in item[1][1]):
            if length in arrays:
                n_items = int(arrays[length][-1]) if len(arrays[length]) else 0
            elif length in lengths:
                n_items = lengths[length]
            else:
                continue  # its offsets cannot be read
            shape = (n_items, 32) if name == "tracks/audio_sha256" else (n_items,)
            try:
                arrays[name] = read_small(
                    store.path / name,
                    dtype,
                    shape,
                    files=store.files,
                    is_described=store.is_described,
                )
            except StoreCorruptError as error:
                self.errors.append(error.detached())
        return arrays

    def misdescribed(
        self, store: Salvage, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> Iterator[StoreCorruptError]:
        """Arrays that have another ``zarr.json`` than their values ask for."""
        expected = {
            name: small_metadata(values.shape, SMALL[name][0]) for name, values in arrays.items()
        }
        shape = (store.n_segments, len(store.layers), store.dim)
        for pooling in store.poolings:
            expected[f"embeddings/{pooling}"] = embeddings_metadata(shape, store.spec.dtype)
        for name, metadata in expected.items():
            try:
                check_metadata(store.path / name, metadata, store.files)
            except StoreCorruptError as error:
                yield error

    def read_rows(self, store: Salvage, known: Mapping[str, str]) -> Iterator[Finding]:
        """Decode every shard; yields one finding a damaged one, with the tracks it hits.

        Parameters
        ----------
        known
            Name to problem of the files that need not be opened any more.
        """
        for pooling in store.poolings:
            self._digest.update(f"embeddings/{pooling}\0".encode())
            folder = f"embeddings/{pooling}"
            n_shards = math.ceil(max(0, store.n_segments) / SHARD_ROWS)
            n_there = self._n_shards(folder)
            if n_shards > n_there + len(known):
                self._is_whole = False
                problem = f"states {store.n_segments} segments; there are {n_there} shards"
                yield Finding(file="zarr.json", problem=problem, scope="store")
                continue
            names = [f"{folder}/{shard_name(index)}" for index in range(n_shards)]
            for index, (name, problem) in enumerate(self._hashed_ahead(names, known)):
                finding = self._read_shard(store, name, index, problem)
                if finding is not None:
                    self._is_whole = False
                    yield finding

    def _n_shards(self, folder: str) -> int:
        """Shards listed, or there, of one pooling."""
        if self.files.listed:
            return sum(name.startswith(f"{folder}/c/") for name in self.files.listed)
        try:
            return len(list((self.files.hold.path / folder / "c").iterdir()))
        except OSError:
            return 0

    def _hashed_ahead(
        self, names: Sequence[str], known: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        """Name and problem of each file; the next is hashed while one is decoded."""

        def look(name: str) -> str:
            return known.get(name) or self.problem_of_hash(name)

        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = deque([pool.submit(look, name) for name in names[:1]])
            for index, name in enumerate(names):
                ahead.extend(pool.submit(look, later) for later in names[index + 1 : index + 2])
                yield name, ahead.popleft().result()

    def problem_of_hash(self, name: str) -> str:
        """What is wrong with a large file by its sha256; empty if it is as listed."""
        entry = self.files.listed.get(name)
        if entry is None:
            return ""
        digest, buffer = hashlib.sha256(), bytearray(BLOCK_BYTES)
        try:
            descriptor = self.files.hold.open(name)
        except OSError as error:
            return predicate_of(error)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            try:
                while n_bytes := file.readinto(buffer):
                    digest.update(memoryview(buffer)[:n_bytes])
                    self.count(n_bytes)
            except OSError as error:
                return predicate_of(error)
        return "" if digest.hexdigest() == entry.sha256 else DIFFERS

    def _read_shard(self, store: Salvage, name: str, index: int, problem: str) -> Finding | None:
        """Decode one shard into the digest, or say which tracks it fails."""
        start = index * SHARD_ROWS
        n_rows = min(SHARD_ROWS, store.n_segments - start)
        if problem and problem != DIFFERS:
            return _finding(store, name, problem, [(start, start + n_rows)])
        try:
            decoded = self._decoded(store, name, n_rows)
        except StoreCorruptError as error:
            if not problem and name in self.files.listed:  # so it is not the file that is wrong
                problem = f"states a shape that {name!r} has not"
                return Finding(file="zarr.json", problem=problem, scope="store")
            return _finding(store, name, predicate_of(error), [(start, start + n_rows)])
        bad = decoded.bad
        if not problem and not bad:
            if decoded.is_finite:
                self._digest.update(decoded.values.reshape(-1).view(np.uint8).data)
                return None
            rows = np.flatnonzero(~np.isfinite(decoded.values).all(axis=(1, 2))) + start
            problem = f"has {len(rows)} rows that are not finite"
            return _finding(store, name, problem, [(int(row), int(row) + 1) for row in rows])
        if not bad and store.files.crc32c(store.path / name):
            # every chunk is the one listed, at its place: only the order in the file differs
            return Finding(file=name, problem=f"{problem}, but its values are", scope="none")
        if not bad:
            return _finding(store, name, problem, [(start, start + n_rows)])
        pieces = [
            (start + block * CHUNK_ROWS, start + min(n_rows, (block + 1) * CHUNK_ROWS))
            for block in sorted(bad)
        ]
        return _finding(store, name, decoded.first, pieces)

    def _decoded(self, store: Salvage, name: str, n_rows: int) -> _Decoded:
        n_layers, dtype = len(store.layers), store.spec.dtype
        path = store.path / name
        with closing(Shard(path, n_rows, n_layers, store.dim, dtype, store.files)) as shard:
            found = _Decoded(np.empty((n_rows, n_layers, store.dim), shard.dtype))
            for block in range(math.ceil(n_rows / CHUNK_ROWS)):
                rows = slice(block * CHUNK_ROWS, min(n_rows, (block + 1) * CHUNK_ROWS))
                for layer in range(n_layers):
                    try:
                        chunk = shard.chunk(block, layer)
                    except StoreCorruptError as error:
                        found.bad.add(block)
                        found.first = found.first or predicate_of(error)
                        continue
                    part = chunk[: rows.stop - rows.start]
                    found.is_finite = found.is_finite and all_finite(part)
                    found.values[rows, layer] = part
        return found

    def content_digest(self, store: Salvage, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Of all values read; empty if any could not be."""
        if not self._is_whole or len(arrays) != len(SMALL):
            return ""
        for name in SMALL:
            if not name.startswith("tracks/message"):
                self._digest.update(f"{name}\0".encode() + arrays[name].tobytes())
        return self._digest.hexdigest()


def predicate_of(error: OSError | StoreCorruptError) -> str:
    """What is wrong with a file, without its name."""
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, StoreCorruptError):
        return str(error).removeprefix(f"{named(Path(error.path))} ")
    return f"cannot be read: {error.strerror or error}"


def _finding(store: Salvage, name: str, problem: str, pieces: Sequence[tuple[int, int]]) -> Finding:
    """Name the tracks that have rows in some places; all of them where that cannot be told."""
    try:
        hit = {track for start, stop in pieces for track in store.tracks_between(start, stop)}
    except NAMELESS:
        return Finding(file=name, problem=problem, scope="store")
    return Finding(file=name, problem=problem, scope="tracks", tracks=tuple(sorted(hit)))
