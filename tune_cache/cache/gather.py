"""Gathering rows of some layers from the shards of a store, checked byte for byte.

Conventions
-----------
A chunk is read straight to where its rows are wanted, if all of them are, in
their order; else it is read aside and its rows are picked. What is checked is
what was read: the chunk's own checksum, that it is the one listed for this
place, and that no value is infinite or NaN.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tune_cache.cache.holds import READ_FLAGS
from tune_cache.cache.listing import Files
from tune_cache.cache.shards import (
    ABSENT,
    CHUNK_ROWS,
    CRC_BYTES,
    INDEX_ENTRY_BYTES,
    SHARD_ROWS,
    check_metadata,
    checked,
    embeddings_metadata,
    inner_n_bytes,
    shard_n_bytes,
    shard_name,
    unreadable,
)
from tune_cache.errors import StoreCorruptError

__all__ = ["Shard", "all_finite", "read_rows", "tracks_between"]

CRC = struct.Struct("<I")
# bits as numbers with a sign and without, those of infinity, and the sign's
BITS: dict[int, tuple[np.dtype[Any], np.dtype[Any], int, int]] = {
    2: (np.dtype("<i2"), np.dtype("<u2"), 0x7C00, 1 << 15),
    4: (np.dtype("<i4"), np.dtype("<u4"), 0x7F800000, 1 << 31),
}
MANY_SHARDS = 4  # below, threads are not worth starting
MOST_THREADS = 8
# to give a task away costs as much as some chunks that are in memory; what is on a disk is
# read with the neighbours of it that the other threads read
TASKS_A_THREAD, MOST_SHARDS_A_TASK = 4, 8


class Shard:
    """One open shard file and its index.

    Parameters
    ----------
    n_rows
        Rows in this shard.
    listed
        The checksums of its chunks as ``files.json`` has them, empty if it has none.
    """

    def __init__(
        self, path: Path, n_rows: int, n_layers: int, dim: int, dtype: str, files: Files | None
    ) -> None:
        self.path, self.dim, self.dtype = path, dim, np.dtype("<" + dtype)
        self.n_layers, self.chunk_n_bytes = n_layers, inner_n_bytes(dim, dtype)
        self.listed = files.crc32c(path) if files else ""
        try:
            self.descriptor = files.open(path) if files else os.open(path, READ_FLAGS)
        except OSError as error:
            raise unreadable(path, f"cannot be opened: {error.strerror or error}") from error
        try:
            n_bytes = shard_n_bytes(n_rows, n_layers, dim, dtype)
            found = os.fstat(self.descriptor).st_size
            if found != n_bytes:
                raise unreadable(path, f"has {found} bytes, expected {n_bytes}")
            n_chunks = math.ceil(n_rows / CHUNK_ROWS) * n_layers
            if self.listed and len(self.listed) != 8 * n_chunks:
                raise unreadable(path, f"is listed with another number of chunks than {n_chunks}")
            n_entries = SHARD_ROWS // CHUNK_ROWS * n_layers
            n_index = n_entries * INDEX_ENTRY_BYTES + CRC_BYTES
            data = os.pread(self.descriptor, n_index, n_bytes - n_index)
            view = checked(path, data, n_index, "the index")
            self.places: list[list[int]] = np.frombuffer(view, "<u8").reshape(-1, 2).tolist()
            self.limit = n_bytes - n_index
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.descriptor)

    def chunk(
        self, block: int, layer: int, into: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Rows of one inner chunk at one layer, (256, dim), in the caller's array or a new one.

        Checked after reading: on an error ``into`` holds what was not to be trusted.
        """
        import google_crc32c

        number = block * self.n_layers + layer
        what = f"chunk {block} of layer {layer}"
        offset, length = self.places[number]
        if offset == ABSENT or length != self.chunk_n_bytes or offset + length > self.limit:
            raise unreadable(self.path, f"has no valid place for {what}")
        rows = np.empty((CHUNK_ROWS, self.dim), self.dtype) if into is None else into
        sum_bytes = bytearray(CRC_BYTES)
        n_read = os.preadv(self.descriptor, [rows.data.cast("B"), sum_bytes], offset)
        if n_read != length:
            raise unreadable(self.path, f"holds {n_read} bytes of {what}, expected {length}")
        (stated,) = CRC.unpack(sum_bytes)
        if google_crc32c.value(rows) != stated:
            raise unreadable(self.path, f"fails the checksum of {what}")
        listed = self.listed[8 * number : 8 * number + 8]
        if listed and listed != f"{stated:08x}":
            raise unreadable(self.path, f"holds another {what} than was written")
        return rows


def all_finite(values: npt.NDArray[Any]) -> bool:
    """Whether no value is infinite or no number; quicker than NumPy's, which converts float16.

    Without the sign, bits order as numbers do, and from infinity on all of the
    exponent is set. Read with a sign, negative values are small; without, the
    negative ones are the largest: two maxima see both ends.
    """
    signed, unsigned, infinity, sign = BITS[values.dtype.itemsize]
    if values.size == 0:
        return True
    highest, lowest = values.view(signed).max(), values.view(unsigned).max()
    return bool(highest < infinity and lowest < sign + infinity)


def tracks_between(
    track_ids: Sequence[str], offset: npt.NDArray[np.int64], start: int, stop: int
) -> tuple[str, ...]:
    """Ids of the tracks that have rows in ``start:stop``.

    Parameters
    ----------
    offset
        Rows of track t are ``offset[t]:offset[t+1]``.
    """
    first = int(np.searchsorted(offset, start, side="right")) - 1
    last = int(np.searchsorted(offset, stop, side="left"))
    rows = np.diff(offset)
    return tuple(
        track_ids[index] for index in range(max(0, first), min(last, len(rows))) if rows[index]
    )


def read_rows(
    folder: Path,
    rows: npt.NDArray[np.int64],
    layers: Sequence[int],
    *,
    shape: tuple[int, int, int],
    dtype: str,
    files: Files | None = None,
    is_described: bool = True,
    tracks: Callable[[int, int], tuple[str, ...]] | None = None,
) -> npt.NDArray[Any]:
    """Gather rows of some layers; only the chunks they lie in are read.

    Parameters
    ----------
    folder
        Of the array.
    rows : of shape (n,)
        Row numbers, in any order.
    layers
        Positions on the array's layer axis.
    shape
        Of the array, (n_segments, n_layers, dim).
    dtype
        ``f2`` or ``f4``.
    files
        Of the store: what each chunk must be, beyond agreeing with its own checksum.
    is_described
        False passes over the array's ``zarr.json``, which may be damaged.
    tracks
        Gives the ids of the tracks between two rows: those that damage hits are told.

    Returns
    -------
    of shape (n, len(layers), dim), in the stored dtype

    Raises
    ------
    StoreCorruptError
        On any byte that is not as written; damage never becomes numbers.
    """
    shards: dict[int, list[_Wanted]] = {}
    for wanted in _wanted_blocks(rows):
        shards.setdefault(wanted.block * CHUNK_ROWS // SHARD_ROWS, []).append(wanted)
    hit = 0, shape[0]
    failed: tuple[tuple[int, int], StoreCorruptError] | None = None
    try:
        if is_described:
            check_metadata(folder, embeddings_metadata(shape, dtype), files)
        # not before: a shape that the array does not bear out costs no memory
        out = np.empty((len(rows), len(layers), shape[2]), "<" + dtype)

        def read(index: int) -> tuple[tuple[int, int], StoreCorruptError] | None:
            n_here = min(SHARD_ROWS, shape[0] - index * SHARD_ROWS)
            reader = _Reader(folder, rows, layers, out, index)
            try:
                place = folder / shard_name(index)
                with closing(Shard(place, n_here, *shape[1:], dtype, files)) as shard:
                    for wanted in shards[index]:
                        reader.gather(shard, wanted)
            except StoreCorruptError as error:
                return reader.hit, error.detached()  # the frames of a thread hold its result
            return None

        def read_several(indices: list[int]) -> tuple[tuple[int, int], StoreCorruptError] | None:
            return next(filter(None, map(read, indices)), None)

        n_threads = min(os.cpu_count() or 1, MOST_THREADS) if len(shards) >= MANY_SHARDS else 1
        n_each = min(MOST_SHARDS_A_TASK, max(1, len(shards) // (n_threads * TASKS_A_THREAD)))
        found = list(shards)
        tasks = [found[start : start + n_each] for start in range(0, len(found), n_each)]
        with ThreadPoolExecutor(n_threads) as threads:  # reading and checksums let others run
            # the results have no name: with the loop they end, and cancel what is not begun
            for failed in (threads.map if n_threads > 1 else map)(read_several, tasks):
                if failed is not None:
                    hit = failed[0]
                    raise failed[1]
    except StoreCorruptError as error:
        failed = None  # or the error keeps itself, and the store held, until a collection
        if tracks is not None:
            error.tracks = tracks(*hit)
        raise
    return out


class _Wanted(NamedTuple):
    """Places of the result whose rows lie in one block of 256.

    Parameters
    ----------
    is_whole
        Whether these are all rows of it, in their order, at places that follow each other.
    """

    block: int
    places: npt.NDArray[np.int64]
    is_whole: bool


def _wanted_blocks(rows: npt.NDArray[np.int64]) -> Iterator[_Wanted]:
    """Which places want rows of which block; looked at all at once, as there are many blocks."""
    if not len(rows):
        return
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    blocks = ordered // CHUNK_ROWS
    starts = np.concatenate([[0], np.flatnonzero(np.diff(blocks)) + 1])
    ends = np.append(starts[1:], len(rows))
    gaps = np.cumsum((np.diff(ordered, prepend=0) != 1) | (np.diff(order, prepend=0) != 1))
    are_whole = (ends - starts == CHUNK_ROWS) & (gaps[ends - 1] == gaps[starts])
    for block, places, is_whole in zip(
        blocks[starts].tolist(), np.split(order, starts[1:]), are_whole.tolist(), strict=True
    ):
        yield _Wanted(block, places, is_whole)


class _Reader:
    """Copies what is wanted of one shard to its places.

    Attributes
    ----------
    hit
        Rows that an error now would be about.
    """

    def __init__(
        self,
        folder: Path,
        rows: npt.NDArray[np.int64],
        layers: Sequence[int],
        out: npt.NDArray[Any],
        index: int,
    ) -> None:
        self.folder = folder
        self.rows, self.layers, self.out = rows, layers, out
        self.hit = index * SHARD_ROWS, (index + 1) * SHARD_ROWS

    def gather(self, shard: Shard, wanted: _Wanted) -> None:
        """Fill the places of the result whose rows lie in one block."""
        block, places = wanted.block, wanted.places
        inner = block % (SHARD_ROWS // CHUNK_ROWS)
        self.hit = block * CHUNK_ROWS, (block + 1) * CHUNK_ROWS
        # a chunk whose rows are wanted in their order goes where it belongs, without a copy
        if wanted.is_whole and len(self.layers) == 1:
            first = int(places[0])
            found = shard.chunk(inner, self.layers[0], self.out[first : first + CHUNK_ROWS, 0])
            are_finite = all_finite(found)
        else:
            are_finite = True
            within = self.rows[places] - block * CHUNK_ROWS
            for position, layer in enumerate(self.layers):
                found = shard.chunk(inner, layer)[within]
                are_finite = are_finite and all_finite(found)
                self.out[places, position] = found
        if not are_finite:
            raise unreadable(self.folder / "zarr.json", "describes rows that are not finite")
