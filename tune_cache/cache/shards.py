"""Reading the arrays of a store: plain Zarr v3 files, checked byte for byte.

Conventions
-----------
Stores are written with zarr and can be read with it. We read them ourselves,
because zarr returns fill values for a missing or emptied shard, and because
stage two then needs no zarr. Layout of one shard file: inner chunks of
(256, 1, dim), each with its crc32c behind it, then an index of (offset, length)
pairs and the index's crc32c (zarr-specs, "Sharding codec", v1.0).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.cache.holds import READ_FLAGS
from tune_cache.cache.listing import Files, corrupt
from tune_cache.errors import StoreCorruptError

__all__ = [
    "CHUNK_ROWS",
    "SHARD_ROWS",
    "Shard",
    "array_metadata",
    "listing_entry",
    "read_rows",
    "read_small",
    "shard_n_bytes",
    "shard_name",
]

CHUNK_ROWS = 256
SHARD_ROWS = 1024
CRC_BYTES = 4
CRC_RESIDUE = 0x48674BC7  # what crc32c gives for any data with its own crc32c behind it
INDEX_ENTRY_BYTES = 16
ABSENT = (1 << 64) - 1
_TYPES = {"f2": "float16", "f4": "float32", "i4": "int32", "i8": "int64", "u1": "uint8"}
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


def array_metadata(
    shape: Sequence[int], dtype: str, chunks: Sequence[int], shards: Sequence[int] | None
) -> dict[str, Any]:
    """State the ``zarr.json`` that an array of ours has; anything else is refused."""
    bytes_codec: dict[str, Any] = {"name": "bytes"} if dtype == "u1" else _LITTLE
    codecs: list[dict[str, Any]] = [bytes_codec, _CRC]
    if shards is not None:
        configuration = {
            "chunk_shape": list(chunks),
            "codecs": codecs,
            "index_codecs": [_LITTLE, _CRC],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    return {
        "shape": list(shape),
        "data_type": _TYPES[dtype],
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": list(chunks if shards is None else shards)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if dtype.startswith("f") else 0,
        "codecs": codecs,
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _corrupt(path: Path, what: str) -> StoreCorruptError:
    return corrupt(path, f"file {path.name!r} of {str(path.parent)!r} {what}")


def _read(path: Path, files: Files | None) -> bytes:
    """A small file whole, compared with the store's list where there is one."""
    try:
        return path.read_bytes() if files is None else files.read(path)
    except OSError as error:
        raise _corrupt(path, f"cannot be read: {error.strerror or error}") from error


def check_metadata(folder: Path, expected: Mapping[str, Any], files: Files | None = None) -> None:
    """Compare an array's ``zarr.json`` with the only one we write.

    Raises
    ------
    StoreCorruptError
        If it is absent or differs in any field.
    """
    path = folder / "zarr.json"
    try:
        found = json.loads(_read(path, files))
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise _corrupt(path, "holds no JSON object")
    if found != expected:
        names = sorted(
            name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)
        )
        raise _corrupt(path, f"differs from what a store of ours has in {', '.join(names)}")


def _checked(path: Path, data: bytes, n_expected: int, what: str, listed: str = "") -> memoryview:
    """Strip and verify the checksum behind a piece of data, and that it is the one listed."""
    import google_crc32c

    if len(data) != n_expected:
        raise _corrupt(path, f"holds {len(data)} bytes of {what}, expected {n_expected}")
    if google_crc32c.value(data) != CRC_RESIDUE:
        raise _corrupt(path, f"fails the checksum of {what}")
    (stated,) = struct.unpack("<I", data[-CRC_BYTES:])
    if listed and listed != f"{stated:08x}":
        raise _corrupt(path, f"holds another {what} than was written")
    return memoryview(data)[:-CRC_BYTES]


def read_small(
    folder: Path,
    dtype: str,
    shape: Sequence[int],
    *,
    files: Files | None = None,
    is_described: bool = True,
) -> npt.NDArray[Any]:
    """Read an array that is one chunk, checking metadata, length and checksums.

    Parameters
    ----------
    is_described
        False passes over its ``zarr.json``, which may be damaged.
    """
    if is_described:
        chunks = [max(1, n) for n in shape]
        check_metadata(folder, array_metadata(shape, dtype, chunks, None), files)
    item = np.dtype("<" + dtype)
    if math.prod(shape) == 0:
        return np.zeros(tuple(shape), item)
    path = folder.joinpath("c", *["0"] * len(shape))
    data = _read(path, files)
    view = _checked(path, data, math.prod(shape) * item.itemsize + CRC_BYTES, "values")
    return np.frombuffer(view, item).reshape(tuple(shape))


def _inner_n_bytes(dim: int, dtype: str) -> int:
    return CHUNK_ROWS * dim * np.dtype(dtype).itemsize + CRC_BYTES


def shard_n_bytes(n_rows: int, n_layers: int, dim: int, dtype: str) -> int:
    """Length of a shard file that holds ``n_rows`` rows.

    Examples
    --------
    >>> shard_n_bytes(1024, 13, 1024, "f2")
    27264020
    """
    n_written = math.ceil(n_rows / CHUNK_ROWS) * n_layers
    n_entries = SHARD_ROWS // CHUNK_ROWS * n_layers
    return n_written * _inner_n_bytes(dim, dtype) + n_entries * INDEX_ENTRY_BYTES + CRC_BYTES


def shard_name(index: int) -> str:
    """Path of a shard inside its array's folder."""
    return f"c/{index}/0/0"


def listing_entry(data: bytes, n_layers: int = 0) -> dict[str, Any]:
    """What ``files.json`` says of a file with these bytes.

    Parameters
    ----------
    n_layers
        Of a shard; its chunks' checksums are listed then, so that a chunk of
        another shard is never taken for one of this.
    """
    entry: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if n_layers:
        n_index = SHARD_ROWS // CHUNK_ROWS * n_layers * INDEX_ENTRY_BYTES + CRC_BYTES
        index = np.frombuffer(data, "<u8", (n_index - CRC_BYTES) // 8, len(data) - n_index)
        ends = [int(at + length) for at, length in index.reshape(-1, 2) if at != ABSENT]
        sums = (struct.unpack_from("<I", data, end - CRC_BYTES)[0] for end in ends)
        entry["crc32c"] = "".join(f"{value:08x}" for value in sums)
    return entry


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
        self.n_layers = n_layers
        self.listed = files.crc32c(path) if files else ""
        try:
            self.descriptor = files.open(path) if files else os.open(path, READ_FLAGS)
        except OSError as error:
            raise _corrupt(path, f"cannot be opened: {error.strerror or error}") from error
        try:
            n_bytes = shard_n_bytes(n_rows, n_layers, dim, dtype)
            found = os.fstat(self.descriptor).st_size
            if found != n_bytes:
                raise _corrupt(path, f"has {found} bytes, expected {n_bytes}")
            n_chunks = math.ceil(n_rows / CHUNK_ROWS) * n_layers
            if self.listed and len(self.listed) != 8 * n_chunks:
                raise _corrupt(path, f"is listed with another number of chunks than {n_chunks}")
            n_entries = SHARD_ROWS // CHUNK_ROWS * n_layers
            n_index = n_entries * INDEX_ENTRY_BYTES + CRC_BYTES
            data = os.pread(self.descriptor, n_index, n_bytes - n_index)
            view = _checked(path, data, n_index, "the index")
            self.index = np.frombuffer(view, "<u8").reshape(-1, n_layers, 2)
            self.limit = n_bytes - n_index
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.descriptor)

    def chunk(self, block: int, layer: int) -> npt.NDArray[Any]:
        """Rows of one inner chunk at one layer, (256, dim)."""
        n_bytes = _inner_n_bytes(self.dim, str(self.dtype))
        offset, length = (int(value) for value in self.index[block, layer])
        if offset == ABSENT or length != n_bytes or offset + length > self.limit:
            raise _corrupt(self.path, f"has no valid place for chunk {block} of layer {layer}")
        data = os.pread(self.descriptor, n_bytes, offset)
        place = 8 * (block * self.n_layers + layer)
        listed = self.listed[place : place + 8]
        view = _checked(self.path, data, n_bytes, f"chunk {block} of layer {layer}", listed)
        return np.frombuffer(view, self.dtype).reshape(CHUNK_ROWS, self.dim)


def read_rows(
    folder: Path,
    rows: npt.NDArray[np.int64],
    layers: Sequence[int],
    *,
    shape: tuple[int, int, int],
    dtype: str,
    files: Files | None = None,
    is_described: bool = True,
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

    Returns
    -------
    of shape (n, len(layers), dim), in the stored dtype

    Raises
    ------
    StoreCorruptError
        On any byte that is not as written; damage never becomes numbers.
    """
    n_rows, n_layers, dim = shape
    if is_described:
        layout = array_metadata(shape, dtype, (CHUNK_ROWS, 1, dim), (SHARD_ROWS, n_layers, dim))
        check_metadata(folder, layout, files)
    out = np.empty((len(rows), len(layers), dim), "<" + dtype)
    order = np.argsort(rows, kind="stable")
    blocks = rows[order] // CHUNK_ROWS
    cuts = np.flatnonzero(np.diff(blocks)) + 1
    shard: Shard | None = None
    shard_index = -1
    try:
        for places in np.split(order, cuts) if len(rows) else []:
            block = int(rows[places[0]]) // CHUNK_ROWS
            index, inner = divmod(block, SHARD_ROWS // CHUNK_ROWS)
            if shard is None or index != shard_index:
                if shard is not None:
                    shard.close()
                    shard = None
                n_here = min(SHARD_ROWS, n_rows - index * SHARD_ROWS)
                place = folder / shard_name(index)
                shard = Shard(place, n_here, n_layers, dim, dtype, files)
                shard_index = index
            within = rows[places] - block * CHUNK_ROWS
            for position, layer in enumerate(layers):
                out[places, position] = shard.chunk(inner, layer)[within]
    finally:
        if shard is not None:
            shard.close()
    if not np.isfinite(out).all():
        raise _corrupt(folder / "zarr.json", "describes rows that are not finite")
    return out
