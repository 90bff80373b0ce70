"""Make manifests from a folder: labels from its sub-folders, or from a CSV.

Conventions
-----------
Files are taken by extension, from an allow-list, in the order of their names;
hidden ones and linked folders are passed over. Splits are 60/20/20 by seed,
stratified, with groups kept together; a ``split`` column is taken as it is. The
manifests are MARBLE's; other content under their names is replaced only by force.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cache.datasets.base import SPLITS
from tune_cache.datasets.label_csv import COLUMN, LabelTable, read_label_csv
from tune_cache.datasets.labelled_files import (
    LabelledFile,
    audio_files,
    group_by_pattern,
    label_by_folder,
    label_by_table,
)
from tune_cache.datasets.splits import draw_splits, strata_of
from tune_cache.errors import UsageError, first_few

__all__ = ["ScanResult", "scan_folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What a scan found and wrote.

    Parameters
    ----------
    prefix
        What to give as DATASET from now on.
    data_root
        What audio paths are relative to; it is found again without being given
        if the manifests are in it or below it.
    files
        The manifests, by split.
    n_tracks, n_groups
        By split.
    n_labels
        Tracks by task and class; a task of numbers has the one class ``""``.
    config
        Text for ``tune.toml`` where a manifest alone cannot name the tasks or
        targets, else empty.
    without_header
        Files whose header tells no length; in the manifests, without ``duration``.
    unlabelled
        Audio files without a label; not in the manifests.
    missing
        Paths of the CSV that are no files below the folder; not in the manifests.
    ungrouped
        How many files the group pattern or column says nothing about; each is its own group.
    mixed_groups
        Groups that hold several classes of one task: one name, perhaps of many things.
    """

    name: str
    prefix: Path
    data_root: Path
    files: Mapping[str, Path]
    n_tracks: Mapping[str, int]
    n_groups: Mapping[str, int]
    n_labels: Mapping[str, Mapping[str, int]]
    config: str = ""
    without_header: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ungrouped: int = 0
    mixed_groups: tuple[str, ...] = ()


def scan_folder(
    folder: Path,
    *,
    out: Path | None = None,
    labels_csv: Path | None = None,
    label_columns: Sequence[str] = (),
    group: str | None = None,
    seed: int = 1234,
    name: str | None = None,
    force: bool = False,
    header_seconds: Callable[[Path], float | None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ScanResult:
    """Write ``NAME.{train,val,test}.jsonl`` for a folder of audio.

    Parameters
    ----------
    folder
        ``folder/LABEL/**/*.wav``, or with a CSV any tree.
    out
        Folder for the manifests; None is ``folder``.
    labels_csv
        See :mod:`tune_cache.datasets.label_csv`.
    group
        A regular expression with one group, searched in the path relative to
        ``folder``; or a column of the CSV, also written ``column:NAME``.
    name
        None is the folder's name.
    force
        Replace manifests that have other content.
    header_seconds
        None is :func:`tune_cache.audio.header_seconds`.
    on_progress
        Called with the number of files looked at and of all.

    Raises
    ------
    ManifestError
        If there is nothing to label by, or too little for three splits.
    UsageError
        If an argument cannot be followed, or other manifests stand in the way.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as the user sees them
    if not os.path.isdir(folder):  # noqa: PTH112 - False where one may not look
        raise UsageError(f"{str(folder)!r} is not a folder")
    name = folder.name if name is None else name
    if not name or name[0] in ".-" or "/" in name or "\0" in name:
        raise UsageError(f"name is {name!r}, expected a file name", hint="give --name")
    audio = audio_files(folder)
    table = None
    missing: list[str] = []
    if labels_csv is None:
        if group is not None and group.startswith(COLUMN):
            raise UsageError(f"group {group!r} names a column, and no CSV was given")
        if label_columns:
            raise UsageError(
                f"label column {label_columns[0]!r} is asked for, and no CSV was given",
                hint="name the CSV with --labels",
            )
        found = label_by_folder(folder, audio)
    else:
        table = read_label_csv(labels_csv, label_columns=label_columns, group=group)
        found, missing = label_by_table(folder, table, labels_csv)
    if group is not None and not (table and table.group_column):
        found = group_by_pattern(found, group)
    splits = _splits(found, seed)
    target = folder if out is None else Path(os.path.abspath(out))  # noqa: PTH100
    data_root = _data_root(folder, target)
    measure = header_seconds or _header_seconds
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    without_header = []
    for n_done, (relative, file) in enumerate(sorted(found.items()), start=1):
        seconds = measure(folder / relative)
        without_header += [relative] if seconds is None else []
        record = _record(relative, file, os.path.relpath(folder, data_root), table, seconds)
        lines[splits[relative]].append(json.dumps(record) + "\n")
        if on_progress is not None:
            on_progress(n_done, len(found))
    files = {split: target / f"{name}.{split}.jsonl" for split in SPLITS}
    _write({files[split]: "".join(lines[split]).encode("ascii") for split in SPLITS}, force)
    n_grouped = sum(file.group is not None for file in found.values())
    n_labels: dict[str, Counter[str]] = {}
    for file in found.values():
        for task, label in file.labels.items():
            n_labels.setdefault(task, Counter())[label if isinstance(label, str) else ""] += 1
    return ScanResult(
        name=name,
        prefix=target / name,
        data_root=data_root,
        files=files,
        n_tracks={split: len(lines[split]) for split in SPLITS},
        n_groups={
            split: len({found[key].group or key for key in found if splits[key] == split})
            for split in SPLITS
        },
        n_labels=n_labels,
        config=_config_text(name, target / name, table),
        without_header=tuple(without_header),
        unlabelled=tuple(relative for relative in audio if relative not in found),
        missing=tuple(missing),
        ungrouped=len(found) - n_grouped if n_grouped else 0,
        mixed_groups=_mixed_groups(found),
    )


def _mixed_groups(found: Mapping[str, LabelledFile]) -> tuple[str, ...]:
    """Groups whose files have different classes."""
    classes: dict[tuple[str, str], set[str]] = {}
    for file in found.values():
        for task, label in file.labels.items():
            if file.group is not None and isinstance(label, str):
                classes.setdefault((file.group, task), set()).add(label)
    return tuple(sorted({group for (group, _), names in classes.items() if len(names) > 1}))


def _header_seconds(path: Path) -> float | None:
    from tune_cache.audio import header_seconds

    return header_seconds(path)


def _splits(found: Mapping[str, LabelledFile], seed: int) -> dict[str, str]:
    """Take the given splits, else draw them with every task's strata."""
    given = {key: file.split for key, file in found.items() if file.split is not None}
    if given:
        return given
    strata: dict[str, list[tuple[str, Any]]] = {key: [] for key in found}
    for task in dict.fromkeys(task for file in found.values() for task in file.labels):
        labels = {key: file.labels[task] for key, file in found.items() if task in file.labels}
        is_class = isinstance(next(iter(labels.values())), str)
        for key, own in strata_of(labels, "multiclass" if is_class else "regression").items():
            strata[key] += [(task, stratum) for stratum in own]
    return draw_splits(strata, {key: file.group or key for key, file in found.items()}, seed=seed)


def _data_root(folder: Path, target: Path) -> Path:
    """Choose what audio paths are relative to, so that a loader finds it by itself."""
    if target.is_relative_to(folder):
        return folder
    common = Path(os.path.commonpath([folder, target]))
    return folder if common == Path(common.anchor) else common


def _has_own_keys(table: LabelTable | None) -> bool:
    """Whether the labels are several tasks, so that each column keeps its name."""
    return table is not None and len(table.texts) + bool(table.numbers) > 1


def _record(
    relative: str,
    file: LabelledFile,
    folder_from_root: str,
    table: LabelTable | None,
    seconds: float | None,
) -> dict[str, Any]:
    path = relative if folder_from_root == "." else f"{folder_from_root}/{relative}"
    record: dict[str, Any] = {"audio_path": path}
    if path != relative:
        record["track_id"] = relative  # the same id wherever the manifests are written
    for task, label in file.labels.items():
        numbers = label if isinstance(label, tuple) else ()
        if _has_own_keys(table):
            names = table.numbers if table and numbers else (task,)
            record.update(zip(names, numbers or (label,), strict=True))
        else:
            record["label"] = numbers[0] if len(numbers) == 1 else label
    if seconds is not None:
        record["duration"] = round(seconds, 6)
    if file.group is not None:
        record["group"] = file.group
    return record


def _config_text(name: str, prefix: Path, table: LabelTable | None) -> str:
    """Write the part of ``tune.toml`` that names what the manifests cannot."""
    if table is None or not (_has_own_keys(table) or len(table.numbers) > 1):
        return ""
    quoted = json.dumps
    lines = [f"[datasets.{quoted(name)}]", f"manifests = {quoted(str(prefix))}"]
    if not _has_own_keys(table):
        lines += [
            f"[datasets.{quoted(name)}.tasks.{quoted(name)}]",
            f"targets = {quoted(list(table.numbers))}",
        ]
        return "\n".join(lines) + "\n"
    for column in table.texts:
        lines += [f"[datasets.{quoted(name)}.tasks.{quoted(column)}]", f"label = {quoted(column)}"]
    if table.numbers:
        task = "_".join(table.numbers)
        lines += [
            f"[datasets.{quoted(name)}.tasks.{quoted(task)}]",
            f"label = {quoted(list(table.numbers))}",
            'kind = "regression"',
        ]
    return "\n".join(lines) + "\n"


def _write(contents: Mapping[Path, bytes], force: bool) -> None:
    """Write files, each atomically; refuse all if one would change unasked."""
    try:
        other = [path for path, content in contents.items() if _differs(path, content)]
        if other and not force:
            raise UsageError(
                f"{first_few([str(path) for path in other])} exist with other content",
                hint="--force replaces them; --name or --out writes elsewhere",
            )
        for path, content in contents.items():
            if not path.exists() or path in other:
                path.parent.mkdir(parents=True, exist_ok=True)
                _replace(path, content)
    except OSError as error:
        raise UsageError(
            f"manifests cannot be written: {error}", hint="--out names another folder"
        ) from error


def _differs(path: Path, content: bytes) -> bool:
    return os.path.lexists(path) and not (path.is_file() and path.read_bytes() == content)


def _replace(path: Path, content: bytes) -> None:
    """Put content under a name, all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
