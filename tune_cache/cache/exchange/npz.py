"""A store as ``.npz``: a zip of plain ``.npy`` arrays, streamed, never compressed.

Conventions
-----------
``np.load`` opens it, one array at a time. Members are those of the store, by the
same names, and ``header_utf8``. The bytes depend on nothing but the store.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tune_cache.cache.exchange.files import damage, open_file, open_zip
from tune_cache.cache.exchange.header import (
    ARRAYS,
    LARGEST_HEADER_BYTES,
    Array,
    Content,
    checked_arrays,
    parse_header,
)
from tune_cache.cache.exchange.npy import as_array, npy_header, read_npy_header
from tune_cache.cache.shards import SHARD_ROWS
from tune_cache.errors import StoreCorruptError, first_few

__all__ = ["opened", "write"]

HEADER = "header_utf8"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can tell; no bytes depend on the clock


def write(path: Path, content: Content) -> None:
    """Write a store into a file of this name."""
    text = np.frombuffer(content.header.text(), np.uint8)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_member(archive, HEADER, "u1", text.shape, [text])
        for name, dtype in ARRAYS.items():
            _write_member(archive, name, dtype, content.arrays[name].shape, [content.arrays[name]])
        for pooling in content.header.spec.poolings:
            shape, dtype = content.header.rows_shape, content.header.spec.dtype
            blocks = content.blocks(pooling)
            _write_member(archive, f"embeddings/{pooling}", dtype, shape, blocks)


def _write_member(
    archive: zipfile.ZipFile,
    name: str,
    dtype: str,
    shape: Sequence[int],
    blocks: Iterable[Array],
) -> None:
    header = npy_header(dtype, shape)
    member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    member.create_system = 3
    member.external_attr = 0o644 << 16
    member.file_size = len(header) + math.prod(shape) * np.dtype(dtype).itemsize
    with archive.open(member, "w") as file:
        file.write(header)
        for block in blocks:
            file.write(np.ascontiguousarray(block).tobytes())


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open what :func:`write` wrote.

    Raises
    ------
    StoreCorruptError
        If a member is missing, foreign, or of another length than the header says.
    """
    place = str(path)
    with open_file(path) as (file, n_bytes), open_zip(file, n_bytes, place) as (archive, members):
        zipped = _Zipped(archive, members, place)
        n_header = members[f"{HEADER}.npy"].file_size if f"{HEADER}.npy" in members else 0
        if not 0 < n_header <= LARGEST_HEADER_BYTES:
            raise StoreCorruptError(
                f"zip {place!r} has no member {HEADER!r}, or one of {n_header} bytes",
                hint="import exported stores, or a folder of .npy files",
                path=place,
            )
        header = parse_header(zipped.header(), place)
        expected = {f"{HEADER}.npy", *(f"{name}.npy" for name in ARRAYS)}
        expected |= {f"embeddings/{pooling}.npy" for pooling in header.spec.poolings}
        if members.keys() != expected:
            odd = sorted(members.keys() ^ expected)
            raise StoreCorruptError(
                f"members of {place!r} differ from what its header says: {first_few(odd)}",
                path=place,
            )

        def blocks(pooling: str) -> Iterator[Array]:
            return zipped.blocks(f"embeddings/{pooling}", header.spec.dtype, header.rows_shape)

        arrays = checked_arrays(header, zipped.array, place)
        yield Content(header=header, arrays=arrays, blocks=blocks)


class _Zipped:
    """Arrays of one zip."""

    def __init__(
        self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], place: str
    ) -> None:
        self.archive, self.members, self.place = archive, members, place

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        with (
            damage(self.place),
            self.archive.open(self.members[f"{name}.npy"]) as file,
        ):
            yield file  # type: ignore[misc]  # a readable file, which typeshed calls IO[bytes]

    def header(self) -> bytes:
        with self._open(HEADER) as file:
            read_npy_header(file)
            return file.read()

    def blocks(self, name: str, dtype: str, shape: Sequence[int]) -> Iterator[Array]:
        """All of an array, at most 1024 rows at a time; the end checks the zip's checksum."""
        n_row = math.prod(shape[1:]) * np.dtype(dtype).itemsize
        member = self.members[f"{name}.npy"]
        with self._open(name) as file:
            found, fortran, kind = read_npy_header(file)
            expected = np.dtype(dtype).newbyteorder("<")
            n_bytes = file.tell() + shape[0] * n_row
            if found != tuple(shape) or fortran or kind != expected or n_bytes != member.file_size:
                raise StoreCorruptError(
                    f"array {name!r} of {self.place!r} is {kind} of shape {found} in "
                    f"{member.file_size} bytes, expected {expected} of shape {tuple(shape)} "
                    f"in {n_bytes}",
                    path=self.place,
                )
            for start in range(0, shape[0], SHARD_ROWS):
                n_rows = min(SHARD_ROWS, shape[0] - start)
                data = file.read(n_rows * n_row)
                yield as_array(data, dtype, (n_rows, *shape[1:]))
            file.read(1)  # at the end, zipfile compares the checksum

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        pieces = list(self.blocks(name, dtype, shape))
        return np.concatenate(pieces) if pieces else as_array(b"", dtype, shape)
