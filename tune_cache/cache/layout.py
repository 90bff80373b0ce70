"""Where everything lies under the cache root, and which root it is.

Conventions
-----------
``<root>/v1`` belongs to this version of the layout. Names are made here only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tune_cache.cache.disk import make_folders
from tune_cache.errors import UsageError
from tune_cache.specs import StoreSpec

__all__ = ["Layout", "cache_of", "lock_path", "repair_root", "resolve_cache_dir"]

STORE_SUFFIX = ".zarr"


def lock_path(store: Path) -> Path:
    """Lock file of a store, wherever it lies."""
    return store.with_name(f".{store.name}.lock")


def repair_root(store: Path) -> Path:
    """Folder in which the replacement of a damaged store is made, a small cache of its own."""
    return store.with_name(f".{store.name}.repair")


def cache_of(store: Path) -> Path | None:
    """Root of the cache in whose folders a store lies; None elsewhere.

    Examples
    --------
    >>> str(cache_of(Path("/c/v1/mel/seg10-a-b.zarr"))), cache_of(Path("/c/seg10-a-b.zarr"))
    ('/c', None)
    """
    v1 = store.parent.parent
    return v1.parent if v1 == Layout(v1.parent).v1 else None


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of all things under one cache root.

    Parameters
    ----------
    root
        The folder given by ``--cache-dir`` or its fallbacks.
    """

    root: Path

    @property
    def v1(self) -> Path:
        """Folder of this layout version."""
        return self.root / "v1"

    @property
    def audio_db(self) -> Path:
        """Inventory of audio files."""
        return self.v1 / "audio.sqlite"

    @property
    def results_db(self) -> Path:
        """Results of probes."""
        return self.v1 / "results.sqlite"

    @property
    def comparisons(self) -> Path:
        """Comparisons of results, one file each; losing them costs time only."""
        return self.v1 / "comparisons"

    @property
    def aggregators(self) -> Path:
        """Weights of trained aggregations, one file each, named by what shaped them."""
        return self.v1 / "aggregators"

    @property
    def datasets(self) -> Path:
        """Datasets that the tool renders itself (the demo)."""
        return self.v1 / "datasets"

    def store_path(self, spec: StoreSpec, collection: str) -> Path:
        """Final path of the store of a spec over a collection."""
        name = f"seg{spec.segments.label}-{spec.key[:8]}-{collection[:8]}{STORE_SUFFIX}"
        return self.v1 / spec.encoder.name / name

    def work_path(self, store: Path) -> Path:
        """Journal folder of an unfinished store."""
        return store.with_name(f".{store.name}.work")

    def lock_path(self, store: Path) -> Path:
        """Lock file of a store; never deleted. Its time says when the store was last read."""
        return lock_path(store)

    def store_paths(self) -> list[Path]:
        """Every published store, by name."""
        if not self.v1.is_dir():
            return []
        return sorted(
            path
            for path in self.v1.glob(f"*/*{STORE_SUFFIX}")
            if not path.name.startswith(".") and path.is_dir()
        )

    def stores_in_repair(self) -> list[Path]:
        """Stores whose replacement is being made, or was when its making was interrupted."""
        marker = repair_root(Path("*"))
        return [
            path.with_name(path.name.removeprefix(".").removesuffix(marker.suffix))
            for path in sorted(self.v1.glob(f"*/{marker.name}"))
        ]

    def prepare(self, *encoders: str) -> None:
        """Create the root.

        Parameters
        ----------
        encoders
            Names of those whose stores will be looked at.

        Raises
        ------
        UsageError
            If it cannot be created, is private to another user, or anybody on the
            machine could plant files in it.
        """
        try:
            make_folders(self.v1)
        except OSError as error:
            raise UsageError(
                f"cache folder {str(self.root)!r} cannot be created: {error.strerror or error}",
                hint="choose another with --cache-dir or TUNE_CACHE_DIR",
            ) from error
        self.check(*encoders)

    def check(self, *encoders: str) -> None:
        """See that what is there of the root may be read and relied on; nothing is written.

        Parameters
        ----------
        encoders
            Names of those whose stores will be looked at.

        Raises
        ------
        UsageError
            If it is private to another user, or anybody on the machine could plant files in it.
        """
        for folder in (self.root, self.v1, *(self.v1 / name for name in encoders)):
            mode = _mode_of(folder)
            if mode is None:
                continue  # and not asked about again: a rival may make it meanwhile
            if not os.access(folder, os.R_OK | os.X_OK):
                raise UsageError(
                    f"cache folder {str(folder)!r} is private to another user",
                    hint=f"its owner can share it: chmod -R go+rX {str(folder)!r}; "
                    "or use one of your own: --cache-dir",
                )
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise UsageError(
                    f"cache folder {str(folder)!r} is writable by everybody",
                    hint=f"chmod o-w {str(folder)!r} (or set the sticky bit: chmod +t)",
                )


def _mode_of(path: Path) -> int | None:
    """Permissions of what is there; None if nothing is, 0 where that cannot be told."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError:
        return 0


def resolve_cache_dir(
    cache_dir: Path | str | None = None,
    *,
    configured: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Choose the cache root.

    Parameters
    ----------
    cache_dir
        As given by the user; wins.
    configured
        From ``tune.toml``; after ``TUNE_CACHE_DIR``, before the XDG folders.
    environment
        Instead of ``os.environ``.
    """
    variables = os.environ if environment is None else environment
    chosen = cache_dir or variables.get("TUNE_CACHE_DIR") or configured
    if chosen is None:
        xdg = variables.get("XDG_CACHE_HOME")
        chosen = (Path(xdg) if xdg else Path.home() / ".cache") / "tune"
    return Path(chosen).expanduser().absolute()
