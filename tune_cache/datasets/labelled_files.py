"""Which audio files a folder has, and what label, group and split each is given.

Conventions
-----------
Files are named by their path relative to the scanned folder, with ``/``. A label
is a str (a class) or a tuple of float (targets). A group or split of None is not given.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_cache.datasets.base import SPLITS
from tune_cache.datasets.label_csv import LabelTable
from tune_cache.datasets.tracks import SPLIT_WORDS
from tune_cache.errors import ManifestError, UsageError, first_few

__all__ = [
    "EXTENSIONS",
    "LabelledFile",
    "audio_files",
    "group_by_pattern",
    "label_by_folder",
    "label_by_table",
]

# fmt: off
EXTENSIONS = frozenset((
    ".wav", ".w64", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".flac", ".ogg", ".oga",
    ".opus", ".mp3", ".aac", ".m4a", ".mp4", ".mka", ".webm", ".wma",
))
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFile:
    """An audio file with its labels by task."""

    labels: Mapping[str, Any]
    group: str | None = None
    split: str | None = None


def audio_files(folder: Path) -> list[str]:
    """List the audio files below a folder, sorted.

    Hidden files and folders, links to folders, links that lead outside, and what
    is no regular file are passed over.

    Raises
    ------
    ManifestError
        If there is none, or a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise ManifestError(
            f"folder {str(error.filename)!r} cannot be read: {error.strerror}",
            path=str(error.filename),
        ) from error

    found = []
    inside = os.path.realpath(folder).rstrip(os.sep) + os.sep
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent) / name
            if (
                not name.startswith(".")
                and path.suffix.lower() in EXTENSIONS
                and os.path.isfile(path)  # noqa: PTH113 - False where one may not look
                and os.path.realpath(path).startswith(inside)
            ):
                found.append(path.relative_to(folder).as_posix())
    if not found:
        raise ManifestError(
            f"folder {str(folder)!r} holds no audio files",
            hint="looked for " + " ".join(sorted(EXTENSIONS)),
            path=str(folder),
        )
    return sorted(found)


def label_by_folder(folder: Path, audio: Sequence[str]) -> dict[str, LabelledFile]:
    """Label every file with the first folder of its path.

    Raises
    ------
    ManifestError
        If no file is in a sub-folder, or all are in one.
    """
    found = {
        relative: LabelledFile(labels={"label": relative.split("/", 1)[0]})
        for relative in audio
        if "/" in relative
    }
    labels = sorted({file.labels["label"] for file in found.values()})
    if not labels:
        raise ManifestError(
            f"{len(audio)} audio files stand directly in {str(folder)!r}, so they have no labels",
            hint="sort them into sub-folders named like the labels, or give a CSV of labels "
            "with the header `file,label`",
            path=str(folder),
        )
    if len(labels) == 1:
        deeper = {relative.split("/")[1] for relative in found if relative.count("/") > 1}
        inner = folder / labels[0]
        raise ManifestError(
            f"all labelled files in {str(folder)!r} have one label, {labels[0]!r}",
            hint=f"did you mean {str(inner)!r}, with {len(deeper)} folders?"
            if len(deeper) > 1
            else "at least two labels are needed",
            path=str(folder),
        )
    return found


def label_by_table(
    folder: Path, table: LabelTable, source: Path
) -> tuple[dict[str, LabelledFile], list[str]]:
    """Label files by the rows of a CSV.

    All columns of numbers together are one task, which a row with an empty cell
    among them has no label for.

    Returns
    -------
    The labelled files, and the paths that are no files below the folder.

    Raises
    ------
    ManifestError
        If no path is a file, two rows are one file, or a split is missing or unknown.
    """

    def wrong(message: str, line: int, hint: str | None = None) -> ManifestError:
        place = f"{source}:{line}" if line else str(source)
        return ManifestError(f"{place}: {message}", hint=hint, path=str(source), line=line)

    found: dict[str, LabelledFile] = {}
    missing = []
    inside = os.path.realpath(folder).rstrip(os.sep) + os.sep
    numbers_task = "_".join(table.numbers)
    for line, written, cells in table.rows:
        path = os.path.normpath(folder / written)
        relative = os.path.relpath(path, folder).replace(os.sep, "/")
        is_below = not relative.startswith("../")
        # isfile is False for what no path can be, realpath is not
        if not (
            is_below
            and os.path.isfile(path)  # noqa: PTH113
            and os.path.realpath(path).startswith(inside)
        ):
            missing.append(written)
            continue
        if relative in found:
            raise wrong(f"file {relative!r} stands in an earlier line already", line)
        split = SPLIT_WORDS.get(cells.get("split", "")) if table.has_splits else None
        if table.has_splits and split is None:
            raise wrong(
                f"split is {reprlib.repr(cells.get('split', ''))}, "
                f"expected one of {', '.join(SPLITS)}",
                line,
                "give every row a split, or drop the column to draw them",
            )
        labels: dict[str, Any] = {name: cells[name] for name in table.texts if name in cells}
        if table.numbers and all(name in cells for name in table.numbers):
            labels[numbers_task] = tuple(float(cells[name]) for name in table.numbers)
        if labels:
            group = cells.get(table.group_column) if table.group_column else None
            found[relative] = LabelledFile(labels=labels, group=group, split=split)
    if not found:
        raise wrong(
            f"none of {len(table.rows)} rows names a labelled file below {str(folder)!r}"
            + (f": {first_few(missing)}" if missing else ""),
            0,
            "paths in the CSV are relative to the scanned folder",
        )
    return found, missing


def group_by_pattern(found: Mapping[str, LabelledFile], pattern: str) -> dict[str, LabelledFile]:
    """Group files by what a regular expression finds in their paths.

    Raises
    ------
    UsageError
        If the pattern is none, has not exactly one group, or matches no file.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"group {pattern!r} is no regular expression: {error}",
            hint="for example '([^/]+)_[0-9]+[.]wav'",
        ) from error
    if compiled.groups != 1:
        raise UsageError(
            f"group {pattern!r} has {compiled.groups} capture groups, expected one",
            hint="put parentheses around the part that names the group; (?:…) captures nothing",
        )
    grouped = {
        relative: replace(file, group=match[1] or None)
        if (match := compiled.search(relative))
        else file
        for relative, file in found.items()
    }
    if all(file.group is None for file in grouped.values()):
        raise UsageError(
            f"group {pattern!r} matches none of {len(found)} files",
            hint=f"it is searched in paths like {next(iter(found))!r}",
        )
    return grouped
