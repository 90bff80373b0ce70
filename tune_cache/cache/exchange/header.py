"""What an exchange file says of itself: one JSON text, the same in every format.

Conventions
-----------
The text holds the attributes and the ledger of the store, the sha256 of every
small array, and its own sha256. All of it is untrusted when read: types, ranges
and hashes are checked before anything is allocated by it. Hashes are integrity,
not authenticity.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from tune_cache.cache.store import FORMAT
from tune_cache.errors import (
    StoreCorruptError,
    StoreMismatchError,
    UsageError,
    first_few,
    printable,
)
from tune_cache.specs import IMPORTED, StoreSpec, canonical_json, sha256_text

__all__ = [
    "ARRAYS",
    "COMPUTED",
    "EXCHANGE",
    "LARGEST_HEADER_BYTES",
    "Array",
    "Content",
    "Header",
    "checked_arrays",
    "encoder_name",
    "make_header",
    "parse_header",
]

Array = npt.NDArray[Any]

EXCHANGE = {"name": "tune_cache exchange", "version": 1}
LARGEST_HEADER_BYTES = 64 << 20
LARGEST_COUNT = (1 << 31) - 1  # of tracks, segments, vector components
# of one row, all layers: a shard is then at most 1 GB, however short the file that claims it
MOST_ROW_VALUES = 1 << 18
# every small array and its dtype, in the order in which the content digest takes them
ARRAYS = {
    "segments/track": "i4",
    "segments/start_sample": "i8",
    "segments/n_samples": "i4",
    "tracks/id_utf8": "u1",
    "tracks/id_offset": "i8",
    "tracks/message_utf8": "u1",
    "tracks/message_offset": "i8",
    "tracks/offset": "i8",
    "tracks/audio_sha256": "u1",
    "tracks/n_samples": "i8",
    "tracks/sample_rate": "i4",
    "tracks/status": "u1",
}
# attributes that assembling a store computes; all others are facts, taken over as they are
COMPUTED = (
    "format", "spec", "spec_key", "collection_digest", "content_digest", "n_tracks",
    "n_segments", "n_layers", "layers", "dim", "dtype", "coverage",
)  # fmt: skip
_FACTS: dict[str, type | tuple[type, ...]] = {
    "datasets": list,
    "license_note": str,
    "encoder_note": str,
    "frame_rate_hz": (int, float),
    "provenance": dict,
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+@=-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A checked header.

    Parameters
    ----------
    value
        All of it, as JSON.
    n_bytes
        Lengths of ``tracks/id_utf8`` and ``tracks/message_utf8``.
    """

    value: Mapping[str, Any]
    spec: StoreSpec
    n_tracks: int
    n_segments: int
    dim: int
    n_bytes: Mapping[str, int]

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the store's group."""
        return self.value["attributes"]  # type: ignore[no-any-return]  # JSON

    @property
    def rows_shape(self) -> tuple[int, int, int]:
        """Of every pooling's array."""
        return self.n_segments, len(self.spec.layers), self.dim

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a small array."""
        if name in self.n_bytes:
            return (self.n_bytes[name],)
        if name.startswith("segments/"):
            return (self.n_segments,)
        if name.endswith("offset"):
            return (self.n_tracks + 1,)
        return (self.n_tracks, 32) if name == "tracks/audio_sha256" else (self.n_tracks,)

    def text(self) -> bytes:
        """The header as it is written."""
        digest = sha256_text(canonical_json(self.value))
        return canonical_json({"header": self.value, "sha256": digest}).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """All that an exchange file holds, in either direction.

    Parameters
    ----------
    arrays
        The small ones, by name.
    blocks
        Pooling to its rows in order, some at a time, each of shape
        (n, n_layers, dim); may be called once for each pooling.
    """

    header: Header
    arrays: Mapping[str, Array]
    blocks: Callable[[str], Iterator[Array]]


def make_header(
    attributes: Mapping[str, Any],
    ledger: Mapping[str, Any],
    arrays: Mapping[str, Array],
    place: str,
) -> Header:
    """Describe a store that is at hand."""
    value = {
        "exchange": EXCHANGE,
        "attributes": dict(attributes),
        "ledger": dict(ledger),
        "bytes": {name: len(arrays[name]) for name in ARRAYS if name.endswith("utf8")},
        "sha256": {name: _sha256(arrays[name]) for name in ARRAYS},
    }
    return _checked(json.loads(canonical_json(value)), place)


def parse_header(data: bytes, place: str) -> Header:
    """Read and check the header of a file that may be anybody's.

    Parameters
    ----------
    data
        At most :data:`LARGEST_HEADER_BYTES`.
    place
        The file, for messages.

    Raises
    ------
    StoreCorruptError
        If it is not what was written.
    StoreMismatchError
        If it is of another version, or contradicts itself.
    """
    try:
        outer = json.loads(data, parse_constant=_refuse_constant)
        value, stated = outer["header"], outer["sha256"]
        if len(outer) != 2 or sha256_text(canonical_json(value)) != stated:
            raise ValueError("it is not the one that was written")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreCorruptError(
            f"header of {place!r} cannot be read: {error}",
            hint="export the store again",
            path=place,
        ) from error
    return _checked(value, place)


def checked_arrays(
    header: Header, read: Callable[[str, str, tuple[int, ...]], Array], place: str
) -> dict[str, Array]:
    """Read every small array and compare its sha256.

    Parameters
    ----------
    read
        From name, dtype and shape.
    """
    arrays = {}
    for name, dtype in ARRAYS.items():
        array = read(name, dtype, header.shape(name))
        if _sha256(array) != header.value["sha256"][name]:
            raise StoreCorruptError(
                f"array {name!r} of {place!r} is not the one that was written",
                hint="export the store again",
                path=place,
            )
        arrays[name] = array
    return arrays


def encoder_name(name: str) -> str:
    """Check a name that becomes a folder of the cache.

    Raises
    ------
    UsageError
        If it could be anything else than one.

    Examples
    --------
    >>> encoder_name("muq"), encoder_name("import:clap-2023")
    ('muq', 'import:clap-2023')
    """
    if _NAME.fullmatch(name.removeprefix(IMPORTED)) is None:
        raise UsageError(
            f"encoder is called {name!r}, expected letters, digits and . _ + @ = -",
            hint="for example --encoder-name clap-2023",
        )
    return name


def _sha256(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _checked(value: Any, place: str) -> Header:
    try:
        return _header(value)
    except StoreMismatchError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StoreMismatchError(
            f"header of {place!r} is none of ours: {printable(error)}",
            hint="export the store again, with the same version of tune_cache",
        ) from error


def _header(value: Mapping[str, Any]) -> Header:
    """Check everything that is said; the caller tells of what it raises."""
    if value["exchange"] != EXCHANGE or value["attributes"]["format"] != FORMAT:
        raise StoreMismatchError(
            f"exchange file is {value['exchange']!r} of format "
            f"{value['attributes'].get('format')!r}, expected {EXCHANGE!r} of {FORMAT!r}",
            hint="upgrade tune_cache",
        )
    if sorted(value) != ["attributes", "bytes", "exchange", "ledger", "sha256"]:
        raise ValueError(f"it has {first_few(sorted(value), 6)}")
    attributes = value["attributes"]
    spec = _spec(attributes["spec"])
    expected = {
        "spec_key": spec.key,
        "dtype": spec.dtype,
        "layers": list(spec.layers),
        "n_layers": len(spec.layers),
    }
    for name, right in expected.items():
        if attributes[name] != right:
            raise ValueError(f"{name} is {attributes[name]!r}, but its spec says {right!r}")
    for name in ("collection_digest", "content_digest"):
        if not re.fullmatch(r"[0-9a-f]{64}", attributes[name]):
            raise ValueError(f"{name} is {attributes[name]!r}, expected a sha256")
    for name, kinds in _FACTS.items():
        if name in attributes and not isinstance(attributes[name], kinds):
            raise ValueError(f"{name} is {attributes[name]!r}")
    if not all(isinstance(name, str) for name in attributes.get("datasets", [])):
        raise ValueError("datasets are no names")
    if not isinstance(value["ledger"], dict):
        raise ValueError("ledger is no object")
    if sorted(value["sha256"]) != sorted(ARRAYS):
        raise ValueError(f"it has arrays {first_few(sorted(value['sha256']), 20)}")
    n_bytes = {
        name: _count(value["bytes"], name, 0, 1 << 40) for name in ARRAYS if name.endswith("utf8")
    }
    if len(value["bytes"]) != len(n_bytes):
        raise ValueError(f"it has lengths of {first_few(sorted(value['bytes']))}")
    _count(attributes, "dim", 1, MOST_ROW_VALUES // len(spec.layers))
    return Header(
        value=value,
        spec=spec,
        n_tracks=_count(attributes, "n_tracks", 0),
        n_segments=_count(attributes, "n_segments", 0),
        dim=attributes["dim"],
        n_bytes=n_bytes,
    )


def _count(record: Mapping[str, Any], name: str, least: int, most: int = LARGEST_COUNT) -> int:
    found = record[name]
    if type(found) is not int or not least <= found <= most:
        raise ValueError(f"{name} is {found!r}, expected an integer from {least} to {most}")
    return found


def _spec(value: Any) -> StoreSpec:
    """Read a spec whose every field has the type it should."""
    spec = StoreSpec.from_json(value)
    for part in (spec, spec.encoder, spec.segments):
        for field, hint in get_type_hints(type(part)).items():
            found = getattr(part, field)
            if hint is int and (type(found) is not int or abs(found) > 1 << 53):
                raise ValueError(f"{field} is {found!r}, expected an integer")
            if hint is str and not isinstance(found, str):
                raise ValueError(f"{field} is {found!r}, expected a text")
    if any(type(layer) is not int for layer in spec.layers):
        raise ValueError(f"layers are {first_few(spec.layers)}")
    if canonical_json(spec.to_json()) != canonical_json(value):
        raise ValueError("its spec is not in the form that is hashed")
    encoder_name(spec.encoder.name)
    return spec
