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

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.errors import StoreCorruptError

__all__ = [
    "CHUNK_ROWS",
    "SHARD_ROWS",
    "array_metadata",
    "read_rows",
    "read_small",
    "shard_n_bytes",
    "shard_name",
]

CHUNK_ROWS = 256
SHARD_ROWS = 1024
CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16
ABSENT = (1 << 64) - 1
_TYPES = {"f2": "float16", "f4": "float32", "i4": "int32", "i8": "int64", "u1": "uint8"}
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
HINT = "move the store away and run `tune extract` again; intact stores serve as sources"


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
    return StoreCorruptError(
        f"file {path.name!r} of {str(path.parent)!r} {what}", hint=HINT, path=str(path)
    )


def check_metadata(folder: Path, expected: Mapping[str, Any]) -> None:
    """Compare an array's ``zarr.json`` with the only one we write.

    Raises
    ------
    StoreCorruptError
        If it is absent or differs in any field.
    """
    path = folder / "zarr.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _corrupt(path, f"cannot be read: {error}") from error
    if found != expected:
        names = sorted(
            name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)
        )
        raise _corrupt(path, f"differs from what a store of ours has in {', '.join(names)}")


def _crc32c(data: bytes | memoryview) -> int:
    import google_crc32c

    return int(google_crc32c.value(bytes(data)))


def _checked(path: Path, data: bytes, n_expected: int, what: str) -> memoryview:
    """Strip and verify the checksum behind a piece of data."""
    if len(data) != n_expected:
        raise _corrupt(path, f"holds {len(data)} bytes of {what}, expected {n_expected}")
    view = memoryview(data)
    (stated,) = struct.unpack("<I", view[-CRC_BYTES:])
    if _crc32c(view[:-CRC_BYTES]) != stated:
        raise _corrupt(path, f"fails the checksum of {what}")
    return view[:-CRC_BYTES]


def read_small(folder: Path, dtype: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """Read an array that is one chunk, checking metadata, length and checksum."""
    chunks = [max(1, n) for n in shape]
    check_metadata(folder, array_metadata(shape, dtype, chunks, None))
    item = np.dtype("<" + dtype)
    if math.prod(shape) == 0:
        return np.zeros(tuple(shape), item)
    path = folder.joinpath("c", *["0"] * len(shape))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _corrupt(path, f"cannot be read: {error.strerror or error}") from error
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


class _Shard:
    """One open shard file and its index."""

    def __init__(self, path: Path, n_rows: int, n_layers: int, dim: int, dtype: str) -> None:
        self.path, self.dim, self.dtype = path, dim, np.dtype("<" + dtype)
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _corrupt(path, f"cannot be opened: {error.strerror or error}") from error
        try:
            n_bytes = shard_n_bytes(n_rows, n_layers, dim, dtype)
            if os.fstat(self.descriptor).st_size != n_bytes:
                raise _corrupt(
                    path, f"has {os.fstat(self.descriptor).st_size} bytes, expected {n_bytes}"
                )
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
        view = _checked(self.path, data, n_bytes, f"chunk {block} of layer {layer}")
        return np.frombuffer(view, self.dtype).reshape(CHUNK_ROWS, self.dim)


def read_rows(
    folder: Path,
    rows: npt.NDArray[np.int64],
    layers: Sequence[int],
    *,
    shape: tuple[int, int, int],
    dtype: str,
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

    Returns
    -------
    of shape (n, len(layers), dim), in the stored dtype

    Raises
    ------
    StoreCorruptError
        On any byte that is not as written; damage never becomes numbers.
    """
    n_rows, n_layers, dim = shape
    check_metadata(
        folder,
        array_metadata(shape, dtype, (CHUNK_ROWS, 1, dim), (SHARD_ROWS, n_layers, dim)),
    )
    out = np.empty((len(rows), len(layers), dim), "<" + dtype)
    order = np.argsort(rows, kind="stable")
    blocks = rows[order] // CHUNK_ROWS
    cuts = np.flatnonzero(np.diff(blocks)) + 1
    shard: _Shard | None = None
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
                shard = _Shard(folder / shard_name(index), n_here, n_layers, dim, dtype)
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
