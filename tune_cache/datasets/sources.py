"""Turn the DATASET argument, where it is a path, into manifest files.

Conventions
-----------
A *set* is ``NAME.train.jsonl``, ``NAME.val.jsonl`` and ``NAME.test.jsonl``, of which
some may be absent, or one ``NAME.jsonl`` whose records name their ``split``.
Accepted: a prefix ``dir/NAME``, a folder that holds one set, one ``.jsonl``. A prefix
wins over a folder of the same name. One split's file stands for that split only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tune_cache.datasets.base import SPLITS
from tune_cache.errors import UsageError, first_few, quoted

__all__ = ["BY_RECORD", "SUFFIX", "ManifestSet", "find_set", "sets_in"]

SUFFIX = ".jsonl"
BY_RECORD = ""  # in place of a split: each record names its own


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSet:
    """The manifests of one set.

    Parameters
    ----------
    files
        By split, or one file under ``BY_RECORD``.
    """

    name: str
    files: Mapping[str, Path]

    @property
    def folder(self) -> Path:
        """Where the manifests are."""
        return next(iter(self.files.values())).parent


def _name_and_split(file_name: str) -> tuple[str, str]:
    """Split ``NAME.train.jsonl`` into name and split, ``NAME.jsonl`` into name and ``""``."""
    stem = file_name.removesuffix(SUFFIX)
    name, dot, split = stem.rpartition(".")
    return (name, split) if dot and name and split in SPLITS else (stem, BY_RECORD)


def _prefixed(prefix: Path) -> ManifestSet | None:
    if not prefix.name:
        return None  # the root folder
    candidates = {split: prefix.with_name(f"{prefix.name}.{split}{SUFFIX}") for split in SPLITS}
    files = {split: path for split, path in candidates.items() if path.exists()}
    return ManifestSet(name=prefix.name, files=files) if files else None


def sets_in(folder: Path) -> dict[str, ManifestSet]:
    """Find the sets that stand directly in a folder, by name.

    Files without a split in their name count only where there is no other set:
    next to one they are somebody's notes.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(SUFFIX))
    split_names = {name for name, split in map(_name_and_split, names) if split}
    if split_names:
        found = {name: _prefixed(folder / name) for name in sorted(split_names)}
        return {name: item for name, item in found.items() if item is not None}
    return {
        stem: ManifestSet(name=stem, files={BY_RECORD: folder / f"{stem}{SUFFIX}"})
        for stem in (name.removesuffix(SUFFIX) for name in names)
    }


def find_set(text: str, base: Path) -> ManifestSet | None:
    """Find the set that a path stands for.

    Parameters
    ----------
    base
        What a relative path starts from.

    Returns
    -------
    None if nothing is there.

    Raises
    ------
    UsageError
        If a folder holds no set or several, or cannot be read.
    """
    if not text or "\0" in text:
        raise UsageError(f"dataset is {text!r}, expected a name or a path")
    path = Path(os.path.abspath(base / Path(text).expanduser()))  # noqa: PTH100 - links stay
    try:
        return _prefixed(path) or _at(path, text)
    except OSError as error:
        raise UsageError(f"{text!r} cannot be read: {error.strerror}") from error


def _at(path: Path, text: str) -> ManifestSet | None:
    if path.is_dir():
        return _only_set(path, text)
    if path.exists() or path.is_symlink():
        if not path.name.endswith(SUFFIX):
            raise UsageError(
                f"{text!r} is a file, expected a manifest ending in {SUFFIX!r}",
                hint="`tune dataset scan` makes manifests from label folders or a CSV",
            )
        name, split = _name_and_split(path.name)
        return ManifestSet(name=name, files={split: path})
    plain = path.with_name(path.name + SUFFIX)
    return ManifestSet(name=path.name, files={BY_RECORD: plain}) if plain.exists() else None


def _only_set(folder: Path, text: str) -> ManifestSet:
    found = sets_in(folder)
    below = [
        quoted(Path(text) / child.name / name)
        for child in (sorted(folder.iterdir()) if not found else ())
        if child.is_dir() and not child.name.startswith(".") and os.access(child, os.R_OK)
        for name in sets_in(child)
    ]
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        typed = [quoted(Path(text) / name) for name in found]
        raise UsageError(
            f"folder {text!r} holds {len(found)} datasets: {first_few(list(found), 9)}",
            hint=f"type one of: {', '.join(typed)}",
        )
    raise UsageError(
        f"folder {text!r} holds no manifests NAME.train{SUFFIX}, NAME.val{SUFFIX}, "
        f"NAME.test{SUFFIX}",
        hint=f"type one of: {', '.join(below[:9])}"
        if below
        else f"`tune dataset scan {quoted(text)}` makes them from label folders or a CSV of labels",
    )
