"""Whether the files of a store are those that were written.

Conventions
-----------
``COMPLETE`` vouches for ``files.json``, which holds length and sha256 of every
file. Lengths are compared whenever a store is opened. Hashes are integrity,
not authenticity: whoever can write the store can write the hashes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from tune_cache.cache.shards import HINT
from tune_cache.errors import StoreCorruptError, printable
from tune_cache.specs import sha256_text

__all__ = ["check_sizes", "read_json"]

LARGEST_JSON_BYTES = 64 << 20


def read_json(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST_JSON_BYTES:
            raise StoreCorruptError(
                f"file {str(path)!r} is a link or too large", hint=HINT, path=str(path)
            )
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreCorruptError(
            f"file {path.name!r} of store {str(path.parent)!r} cannot be read: {error}",
            hint=HINT,
            path=str(path),
        ) from error
    if not isinstance(value, dict):
        raise StoreCorruptError(
            f"file {str(path)!r} holds no JSON object", hint=HINT, path=str(path)
        )
    return value


def check_sizes(path: Path) -> None:
    """Compare the length of every file with the list that COMPLETE vouches for."""
    complete = read_json(path / "COMPLETE")
    listing = path / "files.json"
    try:
        if listing.is_symlink():
            raise OSError("it is a link")
        text = listing.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise StoreCorruptError(
            f"store {str(path)!r} has no readable 'files.json': {error}",
            hint=HINT,
            path=str(listing),
        ) from error
    if sha256_text(text) != complete.get("files_sha256"):
        raise StoreCorruptError(
            f"'files.json' of store {str(path)!r} is not the one that COMPLETE vouches for",
            hint=HINT,
            path=str(listing),
        )
    try:
        files = {
            str(name): (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in json.loads(text)["files"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreCorruptError(
            f"'files.json' of store {str(path)!r} cannot be read: {error}", path=str(listing)
        ) from error
    for folder in {parent for name in files for parent in PurePosixPath(name).parents}:
        if (path / folder).is_symlink() and str(folder) != ".":
            raise StoreCorruptError(
                f"folder {str(folder)!r} of store {str(path)!r} is a link",
                hint=HINT,
                path=str(path / folder),
            )
    for name, (n_bytes, sha256) in files.items():
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts:
            raise StoreCorruptError(
                f"'files.json' names {printable(name)!r}, outside its store", path=str(listing)
            )
        file = path / name
        try:
            status = file.lstat()
        except OSError as error:
            raise StoreCorruptError(
                f"file {name!r} of store {str(path)!r} is missing", hint=HINT, path=str(file)
            ) from error
        if status.st_size != n_bytes or (status.st_mode & 0o170000) != 0o100000:
            raise StoreCorruptError(
                f"file {name!r} of store {str(path)!r} has {status.st_size} bytes, "
                f"expected a regular file of {n_bytes}",
                hint=HINT,
                path=str(file),
            )
        if name == "zarr.json" and hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            raise StoreCorruptError(
                f"file {name!r} of store {str(path)!r} is not the one that was written",
                hint=HINT,
                path=str(file),
            )
