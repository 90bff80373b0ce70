"""``tune cache``: what lies in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cache.cache.store import Store, open_store
from tune_cache.commands.context import open_context
from tune_cache.errors import StoreAmbiguousError, StoreError, StoreNotFoundError, first_few

__all__ = ["CachedStore", "cache_info", "cache_ls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedStore:
    """One line of ``tune cache ls``.

    Parameters
    ----------
    store
        None where it cannot be opened.
    problem
        Why, then.
    n_bytes
        On disk.
    """

    path: Path
    store: Store | None
    n_bytes: int
    problem: str = ""

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


def _n_bytes(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def cache_ls(*, cache_dir: Path | str | None = None) -> list[CachedStore]:
    """List every finished store, damaged ones with what is wrong."""
    stores = []
    for path in open_context(cache_dir).layout.store_paths():
        store, problem = None, ""
        try:
            store = open_store(path)
        except StoreError as error:
            problem = str(error)
        stores.append(CachedStore(path=path, store=store, n_bytes=_n_bytes(path), problem=problem))
    return stores


def cache_info(name: str, *, cache_dir: Path | str | None = None) -> Store:
    """Open the store of a path, a name, or the beginning of one.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError
        If no store, or more than one, is called so.
    """
    if Path(name).is_dir():
        return open_store(Path(name))
    paths = open_context(cache_dir).layout.store_paths()
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
    return open_store(found[0])
