"""A store as Parquet: one row a segment, one column a pooling and layer.

Conventions
-----------
Columns: ``track`` (number), ``track_id`` (text), ``start_sample``, ``n_samples``,
and ``<pooling>_<layer>``, lists of ``dim`` float16 or float32. Row groups of 1024
rows, plain, uncompressed, without dictionaries, so that sizes bound memory. What
has no row (failed tracks, hashes, messages, the header) stands in the file's
key-value metadata, arrays as base64 of their little-endian bytes: nothing is lost.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tune_cache.cache.exchange.files import damage, open_file
from tune_cache.cache.exchange.header import (
    ARRAYS,
    LARGEST_HEADER_BYTES,
    Array,
    Content,
    Header,
    checked_arrays,
    parse_header,
)
from tune_cache.cache.shards import SHARD_ROWS
from tune_cache.errors import MissingExtraError, StoreCorruptError, StoreError, first_few

__all__ = ["opened", "write"]

PREFIX = "tune_cache."
LARGEST_FOOTER_BYTES = 64 << 20
_TAIL_BYTES = 8  # length of the footer, and the magic
_SEGMENTS = {"track": "i4", "start_sample": "i8", "n_samples": "i4"}
_PLAIN = {"PLAIN", "RLE"}  # RLE encodes the levels of lists, never values


def _libraries() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet needs pyarrow, which is not installed",
            hint="pip install 'tune-cache[parquet]', or take --format hdf5 or npz",
        ) from error
    return pyarrow, pyarrow.parquet


def _vectors(header: Header) -> list[str]:
    """Names of the columns that hold vectors, poolings outermost."""
    spec = header.spec
    return [f"{pooling}_{layer}" for pooling in spec.poolings for layer in spec.layers]


def _schema(header: Header) -> Any:
    pyarrow, _ = _libraries()
    integers = {"i4": pyarrow.int32(), "i8": pyarrow.int64()}
    value = pyarrow.float16() if header.spec.dtype == "f2" else pyarrow.float32()
    vector = pyarrow.list_(pyarrow.field("element", value, nullable=False), header.dim)
    fields = [
        pyarrow.field(name, integers[kind], nullable=False) for name, kind in _SEGMENTS.items()
    ]
    fields.insert(1, pyarrow.field("track_id", pyarrow.string(), nullable=False))
    fields += [pyarrow.field(name, vector, nullable=False) for name in _vectors(header)]
    return pyarrow.schema(fields)


def _readable_ids(arrays: Mapping[str, Array]) -> list[str]:
    """Ids as valid Unicode: what is none is written as a backslash and its number."""
    offsets, data = arrays["tracks/id_offset"].tolist(), arrays["tracks/id_utf8"].tobytes()
    return [data[a:b].decode("utf-8", "backslashreplace") for a, b in itertools.pairwise(offsets)]


def write(path: Path, content: Content) -> None:
    """Write a store into a file of this name."""
    _, parquet = _libraries()
    header, arrays = content.header, content.arrays
    metadata = {f"{PREFIX}header": header.text()}
    for name in ARRAYS:
        if name.startswith("tracks/"):
            metadata[PREFIX + name] = base64.b64encode(arrays[name].tobytes())
    if sum(map(len, metadata.values())) > LARGEST_FOOTER_BYTES:
        raise _too_many(header)  # before anything is written
    schema = _schema(header)
    ids = np.array(_readable_ids(arrays), object)
    streams = [content.blocks(pooling) for pooling in header.spec.poolings]
    with parquet.ParquetWriter(
        path,
        schema,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        version="2.6",
        data_page_version="1.0",
    ) as writer:
        row = 0
        for blocks in zip(*streams, strict=True):
            rows = slice(row, row + len(blocks[0]))
            row = rows.stop
            table = _table(schema, blocks, arrays, ids, rows)
            writer.write_table(table, row_group_size=SHARD_ROWS)
            del table  # one is held at a time
        writer.add_key_value_metadata(metadata)
    with path.open("rb") as file:
        file.seek(-_TAIL_BYTES, os.SEEK_END)
        if struct.unpack("<I4s", file.read())[0] > LARGEST_FOOTER_BYTES:
            raise _too_many(header)


def _too_many(header: Header) -> StoreError:
    return StoreError(
        f"{header.n_tracks} tracks and {header.n_segments} segments are more than a Parquet "
        "footer should hold",
        hint="take --format hdf5 or npz",
    )


def _table(
    schema: Any, blocks: Sequence[Array], arrays: Mapping[str, Array], ids: Array, rows: slice
) -> Any:
    """One row group, all poolings side by side."""
    pyarrow, _ = _libraries()
    tracks = arrays["segments/track"][rows]
    columns = [pyarrow.array(tracks), pyarrow.array(ids[tracks], pyarrow.string())]
    columns += [pyarrow.array(arrays[f"segments/{name}"][rows]) for name in list(_SEGMENTS)[1:]]
    for block in blocks:
        for layer in range(block.shape[1]):
            flat = pyarrow.array(np.ascontiguousarray(block[:, layer]).reshape(-1))
            vector = schema.field(len(columns)).type
            columns.append(pyarrow.FixedSizeListArray.from_arrays(flat, type=vector))
    return pyarrow.Table.from_arrays(columns, schema=schema)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open what :func:`write` wrote.

    Raises
    ------
    StoreCorruptError
        If its schema, row groups or encodings are not as written.
    """
    pyarrow, parquet = _libraries()
    place = str(path)
    with open_file(path) as (file, n_bytes):
        _check_footer(file, n_bytes, place)
        file.seek(0)
        with damage(place, pyarrow.ArrowException):
            found = parquet.ParquetFile(
                file,
                thrift_string_size_limit=LARGEST_FOOTER_BYTES,
                thrift_container_size_limit=LARGEST_FOOTER_BYTES // 8,
            )
            metadata = found.metadata.metadata or {}
            text = metadata.get(f"{PREFIX}header".encode(), b"")
            if not 0 < len(text) <= LARGEST_HEADER_BYTES:
                raise _refusal(place, "it has no header of ours")
            header = parse_header(text, place)
            _check_layout(found, header, n_bytes, place)
            rows = _Rows(found, header, place)

            def read(name: str, dtype: str, shape: tuple[int, ...]) -> Array:
                if name.startswith("segments/"):
                    return rows.column(name.split("/")[1], dtype)
                data = base64.b64decode(metadata[(PREFIX + name).encode()], validate=True)
                kind = "u1" if dtype == "u1" else "<" + dtype
                return np.frombuffer(data, kind).reshape(shape)

            arrays = checked_arrays(header, read, place)
            rows.ids = np.array(_readable_ids(arrays), object)[arrays["segments/track"]]
        yield Content(header=header, arrays=arrays, blocks=rows.blocks)


def _refusal(place: str, what: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"Parquet file {place!r}: {what}",
        hint="import files written by `tune cache export`, unchanged",
        path=place,
    )


def _check_footer(file: Any, n_bytes: int, place: str) -> None:
    """Refuse a footer that is longer than the file or than any of ours."""
    file.seek(max(0, n_bytes - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES).rjust(_TAIL_BYTES, b"\0")
    (n_footer,) = struct.unpack("<I", tail[:4])
    if tail[4:] != b"PAR1" or not 0 < n_footer <= min(LARGEST_FOOTER_BYTES, n_bytes - 12):
        raise _refusal(place, f"its footer claims {n_footer} bytes of {n_bytes}")


def _check_layout(found: Any, header: Header, n_bytes: int, place: str) -> None:
    """Compare schema, row groups and the size of every column chunk with the header."""
    facts = found.metadata
    n_columns = len(_SEGMENTS) + 1 + len(_vectors(header))
    if facts.num_columns != n_columns or not found.schema_arrow.equals(_schema(header)):
        names = found.schema_arrow.names
        raise _refusal(place, f"its schema differs from its header's: it has {first_few(names)}")
    n_groups = -(-header.n_segments // SHARD_ROWS)
    if facts.num_rows != header.n_segments or facts.num_row_groups != n_groups:
        raise _refusal(
            place,
            f"it has {facts.num_rows} rows in {facts.num_row_groups} groups, "
            f"expected {header.n_segments} in {n_groups}",
        )
    n_total = 0
    for index in range(n_groups):
        group = facts.row_group(index)
        n_rows = min(SHARD_ROWS, header.n_segments - index * SHARD_ROWS)
        if group.num_rows != n_rows:
            raise _refusal(place, f"row group {index} has {group.num_rows} rows, expected {n_rows}")
        for position in range(n_columns):
            column = group.column(position)
            plain = column.compression == "UNCOMPRESSED" and set(column.encodings) <= _PLAIN
            if not plain or column.has_dictionary_page or column.file_path:
                raise _refusal(
                    place,
                    f"column {column.path_in_schema!r} is {column.compression} in "
                    f"{', '.join(column.encodings)}, expected plain values",
                )
            n_values = n_rows if position < 4 else n_rows * header.dim
            if column.num_values != n_values or column.total_compressed_size < 0:
                raise _refusal(place, f"column {column.path_in_schema!r} has {column.num_values}")
            n_total += column.total_compressed_size
    if n_total > n_bytes:
        raise _refusal(place, f"its columns claim {n_total} bytes of {n_bytes}")


class _Rows:
    """Reads the columns, one row group at a time."""

    def __init__(self, found: Any, header: Header, place: str) -> None:
        self.found, self.header, self.place = found, header, place
        self.ids = np.zeros(0, object)  # of each segment, as the column must say it

    def column(self, name: str, dtype: str) -> Array:
        pieces = [
            self._column(index, name).to_numpy()
            for index in range(self.found.metadata.num_row_groups)
        ]
        return np.concatenate([np.zeros(0, dtype), *pieces]).astype("<" + dtype)

    def _column(self, index: int, name: str) -> Any:
        """One column of one row group: of several at once, Arrow holds many copies."""
        group = self.found.read_row_group(index, columns=[name], use_threads=False)
        return group.column(name).combine_chunks()

    def blocks(self, pooling: str) -> Iterator[Array]:
        pyarrow, _ = _libraries()
        spec, (n_segments, n_layers, dim) = self.header.spec, self.header.rows_shape
        for index, start in enumerate(range(0, n_segments, SHARD_ROWS)):
            n_rows = min(SHARD_ROWS, n_segments - start)
            with damage(self.place, pyarrow.ArrowException):
                ids = list(self.ids[start : start + n_rows])
                if (
                    pooling == spec.poolings[0]
                    and self._column(index, "track_id").to_pylist() != ids
                ):
                    raise _refusal(self.place, f"row group {index} names other tracks")
                block = np.empty((n_rows, n_layers, dim), "<" + spec.dtype)
                for position, layer in enumerate(spec.layers):
                    vectors = self._column(index, f"{pooling}_{layer}")
                    flat = vectors.flatten().to_numpy(zero_copy_only=False)
                    block[:, position] = flat.reshape(n_rows, dim)
            yield block
