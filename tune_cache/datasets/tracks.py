"""Understand a dataset's records: splits, ids, files, groups, labels, tasks.

Conventions
-----------
Records of one track in several sets are merged: one audio file, several labels.
Within a set every track id stands once. The group key is one for the dataset, the
first of ``group``, ``ori_uid``, ``artist``, ``album`` that any record has; a track
without it is a group of its own. What is wrong is collected, and everything that
can be understood is kept.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tune_cache.datasets.audio_paths import Located, Locator, find_data_root
from tune_cache.datasets.base import SPLITS, Problem, Task, Track
from tune_cache.datasets.labels import LabelRule, apply_rules
from tune_cache.datasets.manifest import Record, read_manifest
from tune_cache.datasets.sources import BY_RECORD, ManifestSet

__all__ = ["GROUP_KEYS", "Understood", "understand"]

GROUP_KEYS = ("group", "ori_uid", "artist", "album")
NO_GROUP = (None, "")
SPLIT_WORDS = {
    **{split: split for split in SPLITS},
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}
OWN_KEYS = ("audio_path", "track_id", "duration")  # what a Track says in a field of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """What a dataset's manifests say, and what is wrong with them."""

    tracks: tuple[Track, ...]
    tasks: tuple[Task, ...]
    data_root: Path
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Draft:
    """A track while its records are being collected, by set name."""

    split: str
    located: Located
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def first(self) -> Record:
        return next(iter(self.records.values()))


def _error(
    code: str, message: str, record: Record, *, track_id: str = "", hint: str = ""
) -> Problem:
    return Problem(
        severity="error",
        code=code,
        message=message,
        path=record.path,
        line=record.line,
        track_id=track_id,
        hint=hint,
    )


def understand(
    sets: Sequence[ManifestSet],
    rules: Sequence[LabelRule],
    *,
    dataset: str,
    data_root: Path | None = None,
    allow_outside_root: bool = False,
) -> Understood:
    """Read manifests and understand their records.

    Parameters
    ----------
    rules
        One a task.
    data_root
        None searches it from the first set's folder upwards.
    allow_outside_root
        Take files that are outside the data root and the manifests' folders.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    read: list[tuple[str, str, Record]] = []
    for item in sets:
        for split, path in item.files.items():
            records, faults = read_manifest(path)
            problems += faults
            read += [(item.name, split, record) for record in records]
    read = [row for row in read if _has_audio_path(row[2], problems)]
    audio_paths = [record.fields["audio_path"] for _, _, record in read]
    root = data_root and Path(os.path.abspath(data_root))  # noqa: PTH100 - links stay as written
    root = root or find_data_root(audio_paths, sets[0].folder)
    if root is None:
        root = sets[0].folder
        notes.append(f"no audio file was found from {str(root)!r} upwards; see --data-root")
    locator = Locator(root, [item.folder for item in sets])
    drafts = _collect(read, locator, allow_outside_root, problems, notes)
    groups = _groups(drafts, problems)
    tasks, labels, faults = apply_rules(
        rules, {track_id: draft.records for track_id, draft in drafts.items()}, dataset=dataset
    )
    problems += faults
    label_keys = {key for rule in rules for key in rule.keys}
    tracks = tuple(
        Track(
            track_id=track_id,
            path=draft.located.path,
            audio_path=draft.first.fields["audio_path"],
            split=draft.split,
            group=groups[track_id],
            labels=labels[track_id],
            duration_seconds=_duration(draft.first, track_id, problems),
            manifest=draft.first.path,
            line=draft.first.line,
            extra={
                key: value
                for record in reversed(draft.records.values())
                for key, value in record.fields.items()
                if key not in label_keys and key not in OWN_KEYS
            },
        )
        for track_id, draft in sorted(drafts.items())
    )
    if tracks and not tasks:
        keys = sorted({key for _, _, record in read for key in record.fields} - set(OWN_KEYS))
        notes.append(f"no record has a label; other keys: {', '.join(keys) or 'none'}")
    return Understood(
        tracks=tracks,
        tasks=tasks,
        data_root=root,
        notes=tuple(notes),
        problems=tuple(problems),
    )


def _has_audio_path(record: Record, problems: list[Problem]) -> bool:
    path = record.fields.get("audio_path")
    if isinstance(path, str):
        return True
    found = "has no audio_path" if path is None else f"has audio_path {reprlib.repr(path)}"
    problems.append(
        _error(
            "bad-record",
            f"record {found}, expected a text",
            record,
            hint="every record names its file, relative to the data root",
        )
    )
    return False


def _collect(
    read: Sequence[tuple[str, str, Record]],
    locator: Locator,
    allow_outside_root: bool,
    problems: list[Problem],
    notes: list[str],
) -> dict[str, _Draft]:
    """Merge records into tracks by id; refuse what cannot be a track."""
    unsplit = {record.path for _, split, record in read if split == BY_RECORD} - {
        record.path for _, split, record in read if split == BY_RECORD and "split" in record.fields
    }
    notes += [
        f"{path!r} names no splits: all of it is 'train', which can be encoded but not probed"
        for path in sorted(unsplit)
    ]
    drafts: dict[str, _Draft] = {}
    for set_name, file_split, record in read:
        audio_path = record.fields["audio_path"]
        try:
            located = locator.locate(audio_path)
        except ValueError as error:
            problems.append(
                _error(
                    "bad-record",
                    f"audio_path {reprlib.repr(audio_path)} is no path: {error}",
                    record,
                )
            )
            continue
        track_id = _track_id(record, located, problems)
        if track_id is None:
            continue
        if not located.is_inside and not allow_outside_root:
            problems.append(
                _error(
                    "outside-root",
                    f"audio_path {reprlib.repr(audio_path)} leaves the data root",
                    record,
                    track_id=track_id,
                    hint="give a --data-root that holds all files, or --allow-outside-root "
                    "if you trust this manifest",
                )
            )
            continue
        word = record.fields.get("split") if file_split == BY_RECORD else file_split
        split = "train" if record.path in unsplit else SPLIT_WORDS.get(str(word))
        if split is None:
            problems.append(
                _error(
                    "bad-split",
                    f"split is {reprlib.repr(word)}, expected one of {', '.join(SPLITS)}",
                    record,
                    track_id=track_id,
                    hint="give every record of this file a split, or none",
                )
            )
            continue
        draft = drafts.setdefault(track_id, _Draft(split, located))
        if fault := _conflict(draft, set_name, split, located):
            code, what = fault
            problems.append(
                _error(
                    code,
                    f"track {reprlib.repr(track_id)} {what} (see {draft.first.where})",
                    record,
                    track_id=track_id,
                    hint="a track is one file, in one split, once a manifest set",
                )
            )
            continue
        draft.records[set_name] = record
    return drafts


def _conflict(draft: _Draft, set_name: str, split: str, located: Located) -> tuple[str, str] | None:
    if draft.split != split:
        return "track-in-two-splits", f"is in {split!r} and in {draft.split!r}"
    if draft.located.path != located.path:
        return "duplicate-id", "is the id of two files"
    if set_name in draft.records:
        return "duplicate-id", "appears twice"
    return None


def _track_id(record: Record, located: Located, problems: list[Problem]) -> str | None:
    given = record.fields.get("track_id")
    if given is None:
        return located.relative
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    if isinstance(given, str) and given:
        return given
    problems.append(
        _error(
            "bad-record",
            f"track_id is {reprlib.repr(given)}, expected a text or an integer",
            record,
        )
    )
    return None


def _groups(drafts: dict[str, _Draft], problems: list[Problem]) -> dict[str, str]:
    """Give every track its group, by one key for the whole dataset."""
    present = {
        key
        for draft in drafts.values()
        for record in draft.records.values()
        for key in GROUP_KEYS
        if record.fields.get(key) not in NO_GROUP
    }
    key = next((key for key in GROUP_KEYS if key in present), None)
    groups = {}
    for track_id, draft in drafts.items():
        groups[track_id] = track_id
        named: dict[str, Record] = {}
        for record in draft.records.values():
            value = record.fields.get(key) if key else None
            if value in NO_GROUP:
                continue
            if isinstance(value, bool) or not isinstance(value, str | int):
                problems.append(
                    _error(
                        "bad-record",
                        f"{key} is {reprlib.repr(value)}, expected a text or an integer",
                        record,
                        track_id=track_id,
                    )
                )
                continue
            named.setdefault(str(value), record)
        if named:
            groups[track_id] = next(iter(named))
        if len(named) > 1:
            first, second, *_ = named.values()
            problems.append(
                _error(
                    "bad-record",
                    f"{key} of track {reprlib.repr(track_id)} differs from {first.where}",
                    second,
                    track_id=track_id,
                )
            )
    return groups


def _duration(record: Record, track_id: str, problems: list[Problem]) -> float | None:
    value = record.fields.get("duration")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    problems.append(
        Problem(
            severity="warning",
            code="bad-duration",
            message=f"duration is {reprlib.repr(value)}, expected seconds; it is passed over",
            path=record.path,
            line=record.line,
            track_id=track_id,
        )
    )
    return None
