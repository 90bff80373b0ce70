"""Vectors of others, one track a file: ``.npy`` and ``.pt``, never unpickled.

Conventions
-----------
A file is (dim,), one segment; (n_segments, dim); or (n_segments, n_layers, dim).
Floating point of 16, 32 or 64 bits; a size that a header claims is compared with
the file before anything is allocated. Of a ``.pt``, the instructions of its
pickle are read, not run, and must be those that ``torch.save(tensor)`` writes;
then ``torch.load(weights_only=True)`` reads it. A bad file is a bad input: an error
never speaks of a damaged store.
"""

from __future__ import annotations

import contextlib
import io
import math
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tune_cache.cache.exchange.files import damage, open_file, open_zip
from tune_cache.cache.exchange.header import LARGEST_COUNT, MOST_ROW_VALUES, Array
from tune_cache.cache.exchange.npy import read_npy_header
from tune_cache.errors import StoreCorruptError, StoreError, StoreMismatchError, printable

__all__ = ["SUFFIXES", "VectorFile", "describe", "vector_blocks"]

SUFFIXES = (".npy", ".pt")
BLOCK_BYTES = 4 << 20
LARGEST_WHOLE_BYTES = 1 << 30  # of what cannot be read some rows at a time
_DTYPES = ("float16", "float32", "float64", "bfloat16")
_SAVE_ARRAY = "save one plain array a track: numpy.save(path, array.astype('float32'))"
_SAVE_TENSOR = "save one tensor a track: torch.save(tensor.detach().cpu(), path)"
_FORM = "expected (dim,), (n_segments, dim) or (n_segments, n_layers, dim)"

# what torch.save writes for one tensor: about 40 instructions that build tuples and call once
_MOST_INSTRUCTIONS = 64
_LARGEST_PICKLE_BYTES = 4096
_PROTOCOLS = (2, 3)  # what torch reads without running it; it writes 2 unless told otherwise
_INSTRUCTIONS = frozenset(
    {
        "PROTO", "FRAME", "MARK", "STOP", "BINPUT", "MEMOIZE", "BINGET",
        "GLOBAL", "BINPERSID", "REDUCE", "BINUNICODE", "SHORT_BINUNICODE",
        "BININT", "BININT1", "BININT2", "LONG1", "NEWTRUE", "NEWFALSE",
        "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    }
)  # fmt: skip
_STORAGES = ("HalfStorage", "FloatStorage", "DoubleStorage", "BFloat16Storage")
_GLOBALS = frozenset(
    {
        "torch._utils _rebuild_tensor_v2",
        "collections OrderedDict",
        *(f"torch {name}" for name in _STORAGES),
    }
)
# other tensors, by what their pickle names
_OTHER_DTYPES = {
    "torch BoolStorage": "bool",
    "torch ByteStorage": "uint8",
    "torch CharStorage": "int8",
    "torch ShortStorage": "int16",
    "torch IntStorage": "int32",
    "torch LongStorage": "int64",
    "torch ComplexFloatStorage": "complex64",
    "torch ComplexDoubleStorage": "complex128",
    "torch._utils _rebuild_tensor_v3": "unsigned integers or floats of 8 bits",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFile:
    """One file of vectors, looked at but not read.

    Parameters
    ----------
    path
        With links resolved.
    name
        Relative to the folder; its suffix says how the file is read.
    shape
        (n_segments, n_layers, dim), whatever the file's number of axes.
    has_layers
        Whether the file has an axis of layers.
    dtype
        ``f2`` if its values are of 16 bits and fit float16, else ``f4``.
    """

    path: Path
    name: str
    shape: tuple[int, int, int]
    has_layers: bool
    dtype: str


def describe(path: Path, name: str) -> VectorFile:
    """Look at a file of vectors.

    Raises
    ------
    StoreMismatchError
        If its header claims more than the file holds, it is not what its suffix says, or
        shape or dtype cannot be vectors.
    """
    with open_file(path, follow=False) as (file, n_bytes):
        if _is_tensor(name):
            tensor = _load_tensor(file, n_bytes, name)
            shape, kind = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        else:
            shape, _, dtype = _npy(file, n_bytes, name)
            kind = dtype.name
    if kind not in _DTYPES:
        raise _wrong_dtype(name, kind)
    if not 1 <= len(shape) <= 3:
        raise StoreMismatchError(f"file {name!r} has shape {shape}, {_FORM}")
    whole = (1, 1, *shape) if len(shape) == 1 else shape
    whole = (whole[0], 1, whole[1]) if len(whole) == 2 else whole
    n_segments, n_layers, dim = whole
    if not 1 <= n_layers * dim <= MOST_ROW_VALUES or n_segments > LARGEST_COUNT:
        raise StoreMismatchError(
            f"file {name!r} has shape {shape}, {_FORM} with at most {MOST_ROW_VALUES} values a row"
        )
    return VectorFile(
        path=path,
        name=name,
        shape=(n_segments, n_layers, dim),
        has_layers=len(shape) == 3,
        dtype="f2" if kind == "float16" else "f4",
    )


def vector_blocks(found: VectorFile) -> Iterator[Array]:
    """Read the rows of a file, some at a time, each of shape (n, n_layers, dim)."""
    n_segments, n_layers, dim = found.shape
    with open_file(found.path, follow=False) as (file, n_bytes):
        if _is_tensor(found.name):
            values = _as_numpy(_load_tensor(file, n_bytes, found.name))
        else:
            shape, fortran, dtype = _npy(file, n_bytes, found.name)
            if not fortran or len(shape) == 1:
                yield from _rows_in_order(file, found, dtype)
                return
            if n_bytes > LARGEST_WHOLE_BYTES:
                raise StoreMismatchError(
                    f"file {found.name!r} has {n_bytes} bytes in Fortran's order",
                    hint="save it in C order: numpy.ascontiguousarray(array)",
                )
            values = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
        if values.size != math.prod(found.shape):
            raise _changed(found.name)
        yield np.ascontiguousarray(values).reshape(n_segments, n_layers, dim)


@contextlib.contextmanager
def _input(name: str, hint: str) -> Iterator[None]:
    """Say of a file that cannot be read how to save it."""
    try:
        with damage(name):
            yield
    except StoreCorruptError as error:
        raise StoreMismatchError(error.message, hint=hint) from error


def _changed(name: str) -> StoreError:
    return StoreError(
        f"file {name!r} changed while it was being read", hint="run the same command again"
    )


def _wrong_dtype(name: str, kind: str) -> StoreMismatchError:
    remedy = "tensor.float()" if _is_tensor(name) else "array.astype('float32')"
    return StoreMismatchError(
        f"file {name!r} holds {kind}, expected one of {', '.join(_DTYPES)}",
        hint=f"vectors are floating point: {remedy}",
    )


def _is_tensor(name: str) -> bool:
    return name.lower().endswith(".pt")


def _rows_in_order(file: BinaryIO, found: VectorFile, dtype: np.dtype[Any]) -> Iterator[Array]:
    n_segments, n_layers, dim = found.shape
    n_row = n_layers * dim * dtype.itemsize
    step = max(1, BLOCK_BYTES // n_row)
    for start in range(0, n_segments, step):
        n_rows = min(step, n_segments - start)
        data = file.read(n_rows * n_row)
        if len(data) != n_rows * n_row:
            raise _changed(found.name)
        yield np.frombuffer(data, dtype).reshape(n_rows, n_layers, dim)


def _npy(file: BinaryIO, n_bytes: int, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a header and compare the size it claims with the file's."""
    with _input(name, _SAVE_ARRAY):
        shape, fortran, dtype = read_npy_header(file)
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != n_bytes - file.tell():
            raise ValueError(
                f"its header claims {claimed} bytes of values, it has {n_bytes - file.tell()}"
            )
    return shape, fortran, dtype


def _load_tensor(file: BinaryIO, n_bytes: int, name: str) -> Any:
    """Load the one tensor of a ``.pt`` after everything in it was looked at."""
    with _input(name, _SAVE_TENSOR):
        is_zip = zipfile.is_zipfile(file)
    if not is_zip:
        raise StoreMismatchError(
            f"file {name!r} is no zip archive of torch's: it is cut off or saved in another way",
            hint=_SAVE_TENSOR,
        )
    with _input(name, _SAVE_TENSOR), open_zip(file, n_bytes, name) as (archive, members):
        pickles = [path for path in members if path.endswith("data.pkl")]
        if len(pickles) != 1 or members[pickles[0]].file_size > _LARGEST_PICKLE_BYTES:
            raise ValueError(f"it has {len(pickles)} pickles, expected a small one")
        prefix = pickles[0].removesuffix("data.pkl")
        record = members.get(f"{prefix}data/0")
        storages = [path for path in members if path.startswith(f"{prefix}data/")]
        _check_instructions(archive.read(pickles[0]), name)
        if record is None or len(storages) != 1:
            raise _no_tensor(name, f"it has {len(storages)} storages")
        n_record = record.file_size
    import torch

    file.seek(0)
    try:
        tensor = torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)
    except Exception as error:  # its unpickler raises errors of its own, which differ by release
        raise StoreMismatchError(
            f"file {name!r} cannot be read by torch: {printable(str(error)[:200])}",
            hint=_SAVE_TENSOR,
        ) from error
    if type(tensor) is not torch.Tensor or tensor.layout != torch.strided:
        raise _no_tensor(name, f"it holds a {type(tensor).__name__}")
    n_values = tensor.numel() * tensor.element_size()
    n_storage = tensor.untyped_storage().nbytes()
    if tensor.device.type != "cpu" or n_storage != n_record or n_values > n_storage:
        raise StoreMismatchError(
            f"file {name!r} claims {n_values} bytes of values in a storage of {n_storage}, "
            f"it has {n_record}",
            hint="save a tensor of its own: torch.save(tensor.contiguous().cpu(), path)",
        )
    return tensor.detach()


def _no_tensor(name: str, what: str) -> StoreMismatchError:
    return StoreMismatchError(f"file {name!r} is not one tensor: {what}", hint=_SAVE_TENSOR)


def _check_instructions(data: bytes, name: str) -> None:
    """Read a pickle's instructions without running one; only a plain tensor's are known."""
    for number, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        if number == 0 and (instruction.name != "PROTO" or argument not in _PROTOCOLS):
            protocol = argument if instruction.name == "PROTO" else "0 or 1"
            raise StoreMismatchError(
                f"file {name!r} has a pickle of protocol {protocol}, expected 2, torch's own",
                hint="save it without pickle_protocol: torch.save(tensor.detach().cpu(), path)",
            )
        if number >= _MOST_INSTRUCTIONS or instruction.name not in _INSTRUCTIONS:
            raise _no_tensor(name, f"its pickle has the instruction {instruction.name}")
        if instruction.name == "GLOBAL" and argument in _OTHER_DTYPES:
            raise _wrong_dtype(name, _OTHER_DTYPES[argument])
        if instruction.name == "GLOBAL" and argument not in _GLOBALS:
            raise _no_tensor(name, f"its pickle names {printable(argument)!r}")


def _as_numpy(tensor: Any) -> Array:
    import torch

    if tensor.dtype == torch.bfloat16:
        tensor = tensor.to(torch.float32)
    return np.asarray(tensor.contiguous().numpy())
