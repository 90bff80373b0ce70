"""What every verb needs first: settings, cache folder, dataset.

Conventions
-----------
A setting is what the caller gave, else what ``tune.toml`` says, else the
default. None means "not given".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tune_cache.cache.inventory import AudioFile, Inventory
from tune_cache.cache.layout import Layout, resolve_cache_dir
from tune_cache.cache.plan import PlannedTrack
from tune_cache.datasets.base import Dataset, Track
from tune_cache.datasets.catalog import default_dataset, load_dataset
from tune_cache.datasets.config import Config, find_config
from tune_cache.errors import AudioError, UsageError, quoted
from tune_cache.segments import parse_seg

__all__ = [
    "Context",
    "Length",
    "lengths",
    "open_context",
    "parse_bytes",
    "plan_tracks",
    "several",
]

Length = float | Literal["full"]

UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}


@dataclass(frozen=True, slots=True)
class Context:
    """Settings, cache folder and, where the verb has one, the dataset.

    Parameters
    ----------
    config
        From ``tune.toml``; empty without one.
    layout
        Of the cache.
    """

    config: Config
    layout: Layout

    def setting(self, name: str, given: Any, default: Any = None) -> Any:
        """Choose between what was given, configured, and the default."""
        if given is not None and given != ():
            return given
        return self.config.defaults.get(name, default)

    @property
    def cache_flag(self) -> str:
        """What a command in a hint needs to mean this cache; empty where it does without."""
        usual = resolve_cache_dir(configured=self.config.defaults.get("cache_dir"))
        return "" if self.layout.root == usual else f" --cache-dir {quoted(self.layout.root)}"

    def dataset(
        self,
        name: str | Path | None,
        *,
        data_root: Path | None = None,
        allow_outside_root: bool = False,
    ) -> Dataset:
        """Load the dataset that was named, configured, or built in."""
        name = None if name is None else os.fspath(name)
        asked = default_dataset(self.config)[0] if name is None else name
        configured = asked in self.config.datasets  # then its own data root comes first
        root = data_root if configured else self.setting("data_root", data_root)
        return load_dataset(
            name,
            data_root=root,
            config=self.config,
            allow_outside_root=allow_outside_root,
            cache_dir=self.layout.root,
        )

    @contextmanager
    def inventory(self, *, rehash: bool = False, read_only: bool = False) -> Iterator[Inventory]:
        """Open the inventory of audio files; the cache folder is made unless it is only read."""
        if read_only:
            self.layout.check()
        else:
            self.layout.prepare()
        with Inventory(self.layout.audio_db, rehash=rehash, read_only=read_only) as inventory:
            yield inventory


def open_context(cache_dir: Path | str | None = None, *, start: Path | None = None) -> Context:
    """Read ``tune.toml`` and choose the cache folder.

    Parameters
    ----------
    cache_dir
        Wins over the environment and ``tune.toml``.
    start
        Where the search for ``tune.toml`` begins; the working directory.

    Raises
    ------
    UsageError
        If something else than a folder is there.
    """
    config = find_config(start or Path.cwd())
    root = resolve_cache_dir(cache_dir, configured=config.defaults.get("cache_dir"))
    if _is_no_folder(root):
        raise UsageError(
            f"cache folder {str(root)!r} is no folder",
            hint="choose another with --cache-dir or TUNE_CACHE_DIR",
        )
    return Context(config, Layout(root))


def _is_no_folder(root: Path) -> bool:
    """Whether there is, or stands in the way, something else than a folder, as far as one sees."""
    try:
        return not stat.S_ISDIR(root.stat().st_mode)
    except NotADirectoryError:
        return True
    except OSError:
        return False


def several(value: Any) -> tuple[Any, ...]:
    """Take one value or a sequence of them.

    Examples
    --------
    >>> several("mean"), several(30), several([10, 30]), several(())
    (('mean',), (30,), (10, 30), ())
    """
    return (value,) if isinstance(value, str | int | float) else tuple(value)


def lengths(values: Sequence[Any]) -> tuple[Length, ...]:
    """Read segment lengths that a notebook may give as text or as numbers."""
    return tuple(parse_seg(str(value)) for value in values)


def parse_bytes(value: str | int | None, *, what: str = "memory") -> int | None:
    """Read an amount of memory, or of what an error shall say.

    Examples
    --------
    >>> parse_bytes("4GB"), parse_bytes("1.5 GiB"), parse_bytes(None)
    (4000000000, 1610612736, None)
    """
    if value is None or isinstance(value, int):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
    unit = match[2].upper() if match else "?"
    if match is None or unit not in UNITS:
        raise UsageError(f"{what} is {value!r}, expected a size", hint="for example 4GB or 500MiB")
    return int(float(match[1]) * UNITS[unit])


def plan_tracks(tracks: Sequence[Track], inventory: Inventory) -> list[PlannedTrack]:
    """Find out which audio each track is, reading only what is new or changed."""
    planned: list[PlannedTrack] = []
    found = inventory.files([track.path for track in tracks])
    for track, (_, file) in zip(tracks, found, strict=True):
        planned.append(_planned(track, file))
    return planned


def _planned(track: Track, file: AudioFile | AudioError) -> PlannedTrack:
    if isinstance(file, AudioError):
        return PlannedTrack(
            track_id=track.track_id,
            path=track.path,
            audio_sha256="",
            seconds=0.0,
            reason=file.reason,
            message=f"audio file {str(track.path)!r} {file}",
        )
    return PlannedTrack(
        track_id=track.track_id,
        path=track.path,
        audio_sha256=file.sha256,
        seconds=file.seconds,
        stamp=file.stamp,
    )
