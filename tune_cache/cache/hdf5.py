"""A store as one HDF5 file, written once and flushed; for exchange only.

Conventions
-----------
Groups and arrays are those of the store, by the same names; the root's
attributes say which store it is, ``header_utf8`` says it exactly. Datasets are
contiguous, little-endian, without filters and without times, so that the bytes
depend on nothing but the store, and lengths are checked before anything is read.
Whatever points elsewhere (soft and external links, external storage, virtual
datasets) or needs code to be decoded (filters) is refused, not followed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tune_cache.cache.exchange.files import damage, open_file
from tune_cache.cache.exchange.header import (
    ARRAYS,
    EXCHANGE,
    LARGEST_HEADER_BYTES,
    Array,
    Content,
    Header,
    checked_arrays,
    parse_header,
)
from tune_cache.cache.shards import SHARD_ROWS
from tune_cache.errors import StoreCorruptError, printable
from tune_cache.specs import canonical_json

__all__ = ["opened", "write"]

HEADER = "header_utf8"
LONGEST_ATTRIBUTE_BYTES = 8000  # a longer text stands in the header only


def write(path: Path, content: Content) -> None:
    """Write a store into a file of this name."""
    import h5py

    header = content.header
    text = np.frombuffer(header.text(), np.uint8)
    with h5py.File(path, "w", libver="earliest", locking=False) as file:
        for name, value in _attributes(header).items():
            kind = h5py.string_dtype("utf-8", len(value))
            file.attrs.create(name, np.bytes_(value), dtype=kind)
        _write_dataset(file, HEADER, "u1", text.shape, [text])
        for name, dtype in ARRAYS.items():
            array = content.arrays[name]
            _write_dataset(file, name, dtype, array.shape, [array])
        for pooling in header.spec.poolings:
            name, blocks = f"embeddings/{pooling}", content.blocks(pooling)
            _write_dataset(file, name, header.spec.dtype, header.rows_shape, blocks)
        file.flush()


def _attributes(header: Header) -> dict[str, bytes]:
    """What the root says to people: a function of the header, so that it can be compared."""
    attributes, spec = header.attributes, header.spec
    texts = {
        "format": f"{EXCHANGE['name']} {EXCHANGE['version']}",
        "encoder": spec.encoder.name,
        "segment_seconds": spec.segments.label,
        "spec": canonical_json(spec.to_json()),
        "datasets": ", ".join(attributes.get("datasets", [])),
        "license_note": attributes.get("license_note", ""),
        "encoder_note": attributes.get("encoder_note", ""),
    }
    for name in ("spec_key", "collection_digest", "content_digest"):
        texts[name] = attributes[name]
    encoded = {name: printable(text).encode() for name, text in texts.items()}
    return {
        name: value for name, value in encoded.items() if 0 < len(value) <= LONGEST_ATTRIBUTE_BYTES
    }


def _write_dataset(
    file: Any, name: str, dtype: str, shape: Sequence[int], blocks: Iterable[Array]
) -> None:
    dataset = file.create_dataset(
        name, shape=tuple(shape), dtype=_kind(dtype), track_times=False, fill_time="never"
    )
    row = 0
    for block in blocks:
        if len(block):
            dataset[row : row + len(block)] = block
        row += len(block)


def _kind(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype) if dtype == "u1" else np.dtype("<" + dtype)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open what :func:`write` wrote.

    Raises
    ------
    StoreCorruptError
        If anything in it is not as written, before rows are read.
    """
    import h5py

    place = str(path)
    with open_file(path) as (_, n_bytes):  # a regular file, or none
        pass
    with contextlib.ExitStack() as stack:
        with damage(place):
            file = stack.enter_context(h5py.File(path, "r", locking=False))
            found = _Opened(file, n_bytes, place)
            found.members("/", [HEADER, "embeddings", "segments", "tracks"])
            header = parse_header(found.header(), place)
            found.attributes(_attributes(header))
            poolings = list(header.spec.poolings)
            for group, names in (
                ("embeddings", poolings),
                ("segments", [n.split("/")[1] for n in ARRAYS if n.startswith("segments/")]),
                ("tracks", [n.split("/")[1] for n in ARRAYS if n.startswith("tracks/")]),
            ):
                found.members(group, names)
            arrays = checked_arrays(header, found.array, place)
            for pooling in poolings:  # all of them, before the first row is read
                found.dataset(f"embeddings/{pooling}", header.spec.dtype, header.rows_shape)

        def blocks(pooling: str) -> Iterator[Array]:
            name = f"embeddings/{pooling}"
            return found.blocks(name, header.spec.dtype, header.rows_shape)

        yield Content(header=header, arrays=arrays, blocks=blocks)


class _Opened:
    """One open file, looked at object by object; nothing is listed that was not counted."""

    def __init__(self, file: Any, n_bytes: int, place: str) -> None:
        self.file, self.n_bytes, self.place = file, n_bytes, place

    def refuse(self, what: str) -> StoreCorruptError:
        return StoreCorruptError(
            f"HDF5 file {self.place!r}: {what}",
            hint="import files written by `tune cache export`, unchanged",
            path=self.place,
        )

    def members(self, group: str, names: Sequence[str]) -> None:
        """Expect exactly these names in a group, linked firmly and within the file."""
        import h5py

        identifier = h5py.h5o.open(self.file.id, group.encode())
        if not isinstance(identifier, h5py.h5g.GroupID):
            raise self.refuse(f"{group!r} is no group")
        if identifier.get_num_objs() != len(names):
            raise self.refuse(
                f"group {group!r} has {identifier.get_num_objs()} members, expected {len(names)}"
            )
        for name in names:
            if name.encode() not in identifier:
                raise self.refuse(f"group {group!r} has no {name!r}")
            if identifier.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                raise self.refuse(f"{name!r} of group {group!r} is a link that points elsewhere")

    def attributes(self, expected: dict[str, bytes]) -> None:
        """Expect exactly these texts at the root."""
        import h5py

        root = h5py.h5o.open(self.file.id, b"/")
        if h5py.h5a.get_num_attrs(root) != len(expected):
            raise self.refuse("its attributes are not those of its header")
        for name, value in expected.items():
            attribute = h5py.h5a.open(root, name.encode())
            kind = attribute.get_type()
            # the size is compared first: nothing is read that is longer than what is expected
            text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
            if not text or attribute.shape != () or kind.get_size() != len(value):
                raise self.refuse(f"attribute {name!r} is not a text of {len(value)} bytes")
            found = np.empty((), f"S{len(value)}")
            attribute.read(found, mtype=kind)
            if found.tobytes() != value:
                raise self.refuse(f"attribute {name!r} is not what its header says")

    def dataset(self, name: str, dtype: str, shape: Sequence[int] | None) -> Any:
        """Open a dataset that lies in this file as plain bytes."""
        import h5py

        identifier = h5py.h5o.open(self.file.id, name.encode())
        if not isinstance(identifier, h5py.h5d.DatasetID):
            raise self.refuse(f"{name!r} is no dataset")
        made = identifier.get_create_plist()
        if made.get_layout() != h5py.h5d.CONTIGUOUS:
            raise self.refuse(f"dataset {name!r} is virtual, chunked or compact, not contiguous")
        if made.get_external_count():
            raise self.refuse(f"dataset {name!r} keeps its values in other files")
        if made.get_nfilters():
            raise self.refuse(f"dataset {name!r} is filtered")
        if h5py.h5a.get_num_attrs(identifier):
            raise self.refuse(f"dataset {name!r} has attributes")
        kind = identifier.get_type()
        if not kind.equal(h5py.h5t.py_create(_kind(dtype))):
            raise self.refuse(f"dataset {name!r} is {kind.dtype}, expected {_kind(dtype)}")
        space = identifier.get_space()
        if space.get_simple_extent_type() != h5py.h5s.SIMPLE:
            raise self.refuse(f"dataset {name!r} is no array")
        found, largest = space.get_simple_extent_dims(), space.get_simple_extent_dims(True)
        if found != largest or (found != tuple(shape) if shape is not None else len(found) != 1):
            raise self.refuse(f"dataset {name!r} has shape {found}, expected {shape or '(n,)'}")
        n_bytes = math.prod(found) * _kind(dtype).itemsize
        begins = identifier.get_offset() or 0
        if identifier.get_storage_size() != n_bytes or begins + n_bytes > self.n_bytes:
            raise self.refuse(
                f"dataset {name!r} claims {n_bytes} bytes, the file has {self.n_bytes}"
            )
        return h5py.Dataset(identifier)

    def header(self) -> bytes:
        dataset = self.dataset(HEADER, "u1", None)
        if not 0 < dataset.shape[0] <= LARGEST_HEADER_BYTES:
            raise self.refuse(f"its header has {dataset.shape[0]} bytes")
        return bytes(dataset[:].tobytes())

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        return np.asarray(self.dataset(name, dtype, shape)[...])

    def blocks(self, name: str, dtype: str, shape: Sequence[int]) -> Iterator[Array]:
        for start in range(0, shape[0], SHARD_ROWS):
            with damage(self.place):
                block = self.dataset(name, dtype, shape)[start : start + SHARD_ROWS]
            yield block
