"""Trained weights as files that know what shaped them.

Conventions
-----------
A checkpoint is ``<key>.safetensors``; the key hashes its *record*: vectors, tracks,
settings, seed, code. The file carries the record and a sha256 over record, facts and
weights, so that a file that is cut short, changed or from elsewhere is told apart.
Nothing is unpickled. What cannot be used is an error, never other weights.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tune_cache.cache.disk import make_folders, write_durably
from tune_cache.errors import (
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    first_few,
)
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["Trained", "checkpoint_path", "code_of", "digest_of", "obtain", "read", "write"]

Array = np.ndarray[Any, np.dtype[Any]]

FORMAT = 1
LARGEST_HEADER_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What training left.

    Parameters
    ----------
    weights
        Arrays by name, float32.
    facts
        Plain JSON values: steps, epochs, losses, tracks.
    """

    weights: Mapping[str, Array]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Array]:
        """The weights whose names begin so, without it."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.weights.items()
            if name.startswith(prefix)
        }


def digest_of(*arrays: Array) -> str:
    """Hash arrays with their shapes and types."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


@cache
def code_of(*names: str) -> str:
    """Hash modules of this package, by their dotted names, and the version of torch."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(metadata.version("torch").encode())
    for name in names:
        digest.update((package / (name.replace(".", "/") + ".py")).read_bytes())
    return digest.hexdigest()


def checkpoint_path(folder: Path, record: Mapping[str, Any]) -> Path:
    """Name of the checkpoint of a record."""
    return folder / f"{sha256_text(canonical_json(record))}.safetensors"


def obtain(
    record: Mapping[str, Any],
    make: Callable[[], Trained],
    *,
    folder: Path | None = None,
    exactly: Path | None = None,
) -> Trained:
    """Read what was trained before under the same record, else train and keep it.

    Parameters
    ----------
    folder
        Of checkpoints; None keeps nothing.
    exactly
        Only this file will do: nothing is trained.

    Raises
    ------
    StoreNotFoundError
        If the file asked for is not there.
    StoreMismatchError
        If it was trained on or by something else.
    StoreCorruptError
        If it is not what was written.
    """
    if exactly is not None:
        return read(exactly, record)
    if folder is None:
        return make()
    path = checkpoint_path(folder, record)
    if path.exists() or path.is_symlink():
        return read(path, record)
    made = make()
    try:
        make_folders(folder)
        write(path, record, made)
    except OSError as error:
        raise StoreError(
            f"checkpoint {str(path)!r} cannot be written: {error.strerror or error}",
            hint="see to space and permissions of the cache folder, or choose another --cache-dir",
        ) from error
    return made


def _digest(weights: Mapping[str, Array], header: Mapping[str, Any]) -> str:
    named = [canonical_json(header), *sorted(weights)]
    return sha256_text(canonical_json([named, digest_of(*(weights[n] for n in sorted(weights)))]))


def write(path: Path, record: Mapping[str, Any], trained: Trained) -> None:
    """Write a checkpoint that is there completely or not at all."""
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(array) for name, array in trained.weights.items()}
    header = {"format": FORMAT, "record": dict(record), "facts": dict(trained.facts)}
    # one metadata key: safetensors does not keep the order of several
    told = canonical_json({"header": header, "sha256": _digest(weights, header)})
    write_durably(path, save(weights, {"tune_cache": told}))


def read(path: Path, record: Mapping[str, Any]) -> Trained:
    """Read a checkpoint and check that it is whole, and of this record."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise StoreNotFoundError(
            f"checkpoint {str(path)!r} is not there",
            hint="leave out --aggregator to train it, or give the file it was kept in",
        ) from error
    except OSError as error:
        raise StoreError(
            f"checkpoint {str(path)!r} cannot be read: {error.strerror or error}",
            hint="see to its permissions",
        ) from error
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > min(LARGEST_HEADER_BYTES, len(data)):
            raise ValueError("its header is longer than the file")
        told = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tune_cache"])
        header = told["header"]
        weights = load(data)
        if told["sha256"] != _digest(weights, header):
            raise ValueError("its sha256 is another one")
        found, facts = header["record"], header["facts"]
    except (ValueError, KeyError, TypeError, struct.error, SafetensorError) as error:
        raise StoreCorruptError(
            f"checkpoint {str(path)!r} is damaged or none of ours: {error}",
            hint="remove the file, and it is trained again",
            path=str(path),
        ) from error
    if header["format"] != FORMAT:
        raise StoreMismatchError(
            f"checkpoint {str(path)!r} has format {header['format']!r}, expected {FORMAT}",
            hint="it is from another version of tune_cache: remove the file to train it again",
        )
    wrong = [
        f"{name} is {found.get(name)!r}, expected {value!r}"
        for name, value in json.loads(canonical_json(record)).items()
        if found.get(name) != value
    ]
    wrong += [f"{name} is there too" for name in sorted(found.keys() - record.keys())]
    if wrong:
        raise StoreMismatchError(
            f"checkpoint {str(path)!r} was trained on or by something else: {first_few(wrong)}",
            hint="leave out --aggregator to train one for these tracks and settings; a file of "
            "the cache that was renamed is best removed",
        )
    return Trained(weights=weights, facts=facts)
