"""The ``.npy`` form: a header of a few bytes, then the values as they are.

Conventions
-----------
Versions 1.0 and 2.0, plain dtypes, no objects, so nothing is ever unpickled;
see NEP 1 and ``numpy.lib.format``.
"""

from __future__ import annotations

import io
import struct
import tokenize
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from tune_cache.cache.exchange.header import Array

__all__ = ["npy_header", "read_npy_header"]

LONGEST_HEADER_BYTES = 10_000
_PREFIX_BYTES = 8  # magic and version
# what numpy lets through of the parsers that it gives a header to
_UNREADABLE = (
    SyntaxError, RecursionError, MemoryError, TypeError, AttributeError, tokenize.TokenError
)  # fmt: skip


def npy_header(dtype: str, shape: Sequence[int]) -> bytes:
    """Write the header of an array that follows in C order.

    Examples
    --------
    >>> npy_header("f2", (3, 4))[:6], len(npy_header("f2", (3, 4))) % 64
    (b'\\x93NUMPY', 0)
    """
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype("<" + dtype if dtype != "u1" else dtype))
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
    )
    return buffer.getvalue()


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Read a header; the file stands at the first value then.

    Returns
    -------
    shape, whether it is in Fortran's order, dtype

    Raises
    ------
    ValueError
        If it is none, too long, or of a dtype with objects or fields.
    """
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): ("<H", np.lib.format.read_array_header_1_0),
        (2, 0): ("<I", np.lib.format.read_array_header_2_0),
    }
    if version not in readers:
        raise ValueError(f"it is .npy version {version}, expected 1.0 or 2.0")
    length, read = readers[version]
    (n_header,) = struct.unpack(length, file.read(struct.calcsize(length)))
    if n_header > LONGEST_HEADER_BYTES:
        raise ValueError(f"its header has {n_header} bytes")
    file.seek(_PREFIX_BYTES)
    try:
        shape, fortran, dtype = read(file, max_header_size=LONGEST_HEADER_BYTES)
    except _UNREADABLE as error:
        raise ValueError(f"its header cannot be read: {type(error).__name__}") from error
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"its shape is {shape!r}")
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise ValueError(f"its dtype is {dtype}: objects and records are never loaded")
    return shape, bool(fortran), dtype


def as_array(data: bytes, dtype: str, shape: Sequence[int]) -> Array:
    """View bytes as a little-endian array."""
    return np.frombuffer(data, "<" + dtype if dtype != "u1" else dtype).reshape(tuple(shape))
