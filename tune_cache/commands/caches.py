"""``tune cache``: what lies in the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cache.cache.layout import Layout, cache_of
from tune_cache.cache.store import Store, open_store
from tune_cache.cache.usage import size_of
from tune_cache.commands.context import Context, open_context
from tune_cache.errors import (
    StoreAmbiguousError,
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    first_few,
)

__all__ = ["CachedStore", "cache_info", "cache_ls", "context_of", "store_path"]

MARKS = ("COMPLETE", "files.json", "zarr.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedStore:
    """One line of ``tune cache ls``.

    Parameters
    ----------
    store
        None where it cannot be opened.
    problem
        Why, then.
    is_damaged
        Whether that is damage, or a version that this one cannot read; a store that
        another user keeps private may be whole.
    n_bytes
        On disk.
    """

    path: Path
    store: Store | None
    n_bytes: int
    problem: str = ""
    is_damaged: bool = False

    def row(self) -> dict[str, Any]:
        """Plain values for tables and JSON."""
        if self.store is None:
            return {"store": f"{self.path.parent.name}/{self.path.name}", "problem": self.problem}
        attributes = self.store.attrs
        return {
            "store": f"{self.path.parent.name}/{self.path.name}",
            "encoder": self.store.spec.encoder.name,
            "seg": self.store.spec.segments.label,
            "tracks": attributes["coverage"]["ok"],
            "failed": sum(attributes["coverage"]["failed"].values()),
            "segments": self.store.n_segments,
            "layers": len(self.store.layers),
            "dim": self.store.dim,
            "bytes": self.n_bytes,
            "datasets": ", ".join(attributes.get("datasets", [])),
            "problem": "",
        }


def cache_ls(*, cache_dir: Path | str | None = None) -> list[CachedStore]:
    """List every finished store, damaged ones with what is wrong."""
    stores = []
    for path in open_context(cache_dir).layout.store_paths():
        store, problem, is_damaged = None, "", False
        try:
            store = open_store(path)
            store.files.hold.close()  # a list of a thousand must not run out of descriptors
        except StoreNotFoundError:
            continue  # removed meanwhile
        except StoreError as error:
            problem = str(error)
            is_damaged = isinstance(error, StoreCorruptError | StoreMismatchError)
        stores.append(
            CachedStore(
                path=path,
                store=store,
                n_bytes=size_of(path)[0],
                problem=problem,
                is_damaged=is_damaged,
            )
        )
    return stores


def cache_info(name: str, *, cache_dir: Path | str | None = None) -> Store:
    """Open the store of a path, a name, or the beginning of one.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError
        If no store, or more than one, is called so.
    """
    return open_store(store_path(name, open_context(cache_dir).layout))


def context_of(name: str | Path, cache_dir: Path | str | None) -> Context:
    """Settings for one store: a path into a cache means that cache, if no other is given."""
    given = Path(name).absolute()
    root = cache_of(given)
    if cache_dir is None and root is not None and given in _stores_of(Layout(root)):
        return open_context(root)
    return open_context(cache_dir)


def _stores_of(layout: Layout) -> list[Path]:
    """Every store; a repair that was interrupted may have left none under a name for the moment."""
    return sorted({*layout.store_paths(), *layout.stores_in_repair()})


def store_path(name: str | Path, layout: Layout) -> Path:
    """Find the store of a path, a name, or the beginning of one; it need not be whole.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError
        If no store, or more than one, is called so.
    """
    name = os.fspath(name)
    given = Path(name).absolute()
    paths = _stores_of(layout)
    if given in paths or _is_store(given):
        return given
    found = [
        path
        for path in paths
        if path.name.startswith(name) or f"{path.parent.name}/{path.name}".startswith(name)
    ]
    if not found:
        raise StoreNotFoundError(
            f"no store is called {name!r}", hint="list what there is with `tune cache ls`"
        )
    if len(found) > 1:
        names = [f"{path.parent.name}/{path.name}" for path in found]
        raise StoreAmbiguousError(
            f"{len(found)} stores are called {name!r}: {first_few(names)}",
            hint="give more of the name",
        )
    return found[0]


def _is_store(path: Path) -> bool:
    """Whether a store lies there, as far as one may look: opening it says what may not be read."""
    try:
        return any((path / mark).exists() for mark in MARKS)
    except PermissionError:
        return True
