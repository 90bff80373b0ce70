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
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.cache.listing import Files, corrupt, named
from tune_cache.errors import StoreCorruptError

__all__ = [
    "ABSENT",
    "CHUNK_ROWS",
    "CRC_BYTES",
    "INDEX_ENTRY_BYTES",
    "SHARD_ROWS",
    "array_metadata",
    "check_metadata",
    "checked",
    "embeddings_metadata",
    "inner_n_bytes",
    "listing_entry",
    "read_small",
    "shard_n_bytes",
    "shard_name",
    "small_metadata",
    "unreadable",
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


def unreadable(path: Path, what: str) -> StoreCorruptError:
    return corrupt(path, f"{named(path)} {what}")


def small_metadata(shape: Sequence[int], dtype: str) -> dict[str, Any]:
    """State the ``zarr.json`` of an array that is one chunk."""
    return array_metadata(shape, dtype, [max(1, n) for n in shape], None)


def embeddings_metadata(shape: tuple[int, int, int], dtype: str) -> dict[str, Any]:
    """State the ``zarr.json`` of embeddings, (n_segments, n_layers, dim)."""
    _, n_layers, dim = shape
    return array_metadata(shape, dtype, (CHUNK_ROWS, 1, dim), (SHARD_ROWS, n_layers, dim))


def _read(path: Path, files: Files | None) -> bytes:
    """A small file whole, compared with the store's list where there is one."""
    try:
        return path.read_bytes() if files is None else files.read(path)
    except OSError as error:
        raise unreadable(path, f"cannot be read: {error.strerror or error}") from error


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
        raise unreadable(path, f"cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise unreadable(path, "holds no JSON object")
    if found != expected:
        names = sorted(
            name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)
        )
        raise unreadable(path, f"differs from what a store of ours has in {', '.join(names)}")


def checked(path: Path, data: bytes, n_expected: int, what: str, listed: str = "") -> memoryview:
    """Strip and verify the checksum behind a piece of data, and that it is the one listed."""
    import google_crc32c

    if len(data) != n_expected:
        raise unreadable(path, f"holds {len(data)} bytes of {what}, expected {n_expected}")
    if google_crc32c.value(data) != CRC_RESIDUE:
        raise unreadable(path, f"fails the checksum of {what}")
    (stated,) = struct.unpack("<I", data[-CRC_BYTES:])
    if listed and listed != f"{stated:08x}":
        raise unreadable(path, f"holds another {what} than was written")
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
        check_metadata(folder, small_metadata(shape, dtype), files)
    item = np.dtype("<" + dtype)
    if math.prod(shape) == 0:
        return np.zeros(tuple(shape), item)
    path = folder.joinpath("c", *["0"] * len(shape))
    data = _read(path, files)
    view = checked(path, data, math.prod(shape) * item.itemsize + CRC_BYTES, "values")
    return np.frombuffer(view, item).reshape(tuple(shape))


def inner_n_bytes(dim: int, dtype: str) -> int:
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
    return n_written * inner_n_bytes(dim, dtype) + n_entries * INDEX_ENTRY_BYTES + CRC_BYTES


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
