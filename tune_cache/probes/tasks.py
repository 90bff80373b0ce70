"""From a dataset's labels to numbers a probe can learn, split by split.

Conventions
-----------
Classes are those of *training* tracks, sorted by their text; a label first met
in validation or test gets a number behind them, so that its tracks stay in
every denominator and count as errors. Tracks without a label or without
vectors are left out and named, never filled in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.errors import TaskError, first_few, printable
from tune_cache.probes.metrics import Metric, metrics_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tune_cache.datasets.base import Dataset, Task, Track

__all__ = ["SplitData", "TaskData", "load_task"]

Array = np.ndarray[Any, np.dtype[Any]]

SPLITS = ("train", "val", "test")
NO_LABEL = "no label"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitData:
    """Labels of one split, tracks in the order of their ids.

    Parameters
    ----------
    groups
        One a track: what a bootstrap draws.
    truth : of shape (n_tracks,), int64, or (n_tracks, n_targets), float64
        Numbers of classes, or targets.
    """

    track_ids: tuple[str, ...]
    groups: tuple[str, ...]
    truth: Array

    def __len__(self) -> int:
        return len(self.track_ids)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskData:
    """What a probe is to learn.

    Parameters
    ----------
    classes
        Of the training tracks; empty for regression.
    unseen
        Labels of other splits that no training track has; numbered on from
        ``len(classes)``.
    targets
        Names of the regression targets; empty for classes.
    metrics
        The first is the one that choices are made by.
    splits
        ``train``, ``val`` and ``test``, none empty.
    excluded
        Id of each track left out → why, ``no label`` or the store's reason.
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    metrics: tuple[Metric, ...]
    splits: Mapping[str, SplitData]
    excluded: Mapping[str, str]

    def decode(self, value: Any) -> str | tuple[float, ...]:
        """Turn one row of ``truth``, or of a prediction, back into a label."""
        if self.kind == "regression":
            return tuple(float(item) for item in value)
        return (self.classes + self.unseen)[int(value)]

    def warnings(self) -> tuple[str, ...]:
        """Say what a reader of the scores must know about the labels."""
        found = []
        for name, split in self.splits.items():
            n_new = int((split.truth >= len(self.classes)).sum()) if self.classes else 0
            if n_new:
                new = sorted({self.decode(value) for value in split.truth} & set(self.unseen))
                found.append(
                    f"{n_new} of {len(split)} {name} tracks have classes that no training track"
                    f" has ({first_few(new)}); they count as errors"
                )
        reasons: dict[str, int] = {}
        for reason in self.excluded.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        if reasons:
            listed = ", ".join(
                f"{printable(reason)}: {count}" for reason, count in sorted(reasons.items())
            )
            found.append(f"{len(self.excluded)} tracks are left out ({listed})")
        return tuple(found)


def load_task(dataset: Dataset, task: Task, status: Mapping[str, str] | None = None) -> TaskData:
    """Encode the labels of the tracks that can be used.

    Parameters
    ----------
    status
        Track id → ``ok`` or why it has no vectors, as a store's ``status``; a
        track that is absent has none. None takes every track.

    Raises
    ------
    TaskError
        If a split is left without tracks, a label does not fit the kind, or
        training tracks have fewer than two classes.
    """
    if task.kind == "multilabel":
        raise TaskError(
            f"task {task.name!r} is multilabel, which no probe here can learn yet",
            hint="choose a multiclass or regression task with --task",
        )
    if task.kind == "regression" and not task.targets:
        raise TaskError(f"task {task.name!r} is regression without names of targets")
    metrics = metrics_of(task.kind, task.targets, task.metrics)
    excluded: dict[str, str] = {}
    usable: dict[str, list[Track]] = {split: [] for split in SPLITS}
    for track in dataset.tracks:
        why = "ok" if status is None else status.get(track.track_id, "not in the store")
        if track.labels.get(task.name) is None:
            why = NO_LABEL
        if why == "ok":
            usable[track.split].append(track)
        else:
            excluded[track.track_id] = why
    _refuse_empty(dataset, task, usable, excluded)
    labels = {split: [_label(track, task) for track in tracks] for split, tracks in usable.items()}
    classes: list[Any] = []
    unseen: list[Any] = []
    if task.kind == "multiclass":
        classes = sorted(set(labels["train"]))
        unseen = sorted({label for split in SPLITS for label in labels[split]} - set(classes))
        if len(classes) < 2:
            raise TaskError(
                f"task {task.name!r} has one class in train, {classes[0]!r}; expected two or more",
                hint="check the splits with `tune dataset info`",
            )
    number = {label: index for index, label in enumerate(classes + unseen)}
    return TaskData(
        name=task.name,
        kind=task.kind,
        classes=tuple(classes),
        unseen=tuple(unseen),
        targets=task.targets,
        metrics=metrics,
        splits={
            split: SplitData(
                track_ids=tuple(track.track_id for track in tracks),
                groups=tuple(track.group for track in tracks),
                truth=np.array([number[label] for label in labels[split]], dtype=np.int64)
                if number
                else np.array(labels[split], dtype=np.float64),
            )
            for split, tracks in usable.items()
        },
        excluded=excluded,
    )


def _label(track: Track, task: Task) -> str | tuple[float, ...]:
    """One track's label: the text of a class, or a number for every target."""
    raw = track.labels[task.name]
    if task.kind == "multiclass":
        if isinstance(raw, str | int):
            return str(raw)
        expected = "a text or an integer"
    else:
        values = tuple(raw) if isinstance(raw, list | tuple) else (raw,)
        numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            for value in values
        )
        if numbers and len(values) == len(task.targets):
            return tuple(float(value) for value in values)
        expected = f"{len(task.targets)} finite numbers ({', '.join(task.targets)})"
    raise TaskError(
        f"track {track.track_id!r} has {task.name!r} {raw!r}, expected {expected}"
        + (f" ({track.manifest}:{track.line})" if track.manifest else ""),
        hint="mend the manifest, or change the task's kind in tune.toml",
    )


def _refuse_empty(
    dataset: Dataset, task: Task, usable: Mapping[str, Sequence[Track]], excluded: Mapping[str, str]
) -> None:
    """Raise if a split has nothing to learn, choose or score with."""
    for split in SPLITS:
        if usable[split]:
            continue
        lost = [track for track in dataset.tracks if track.split == split]
        if not lost:
            raise TaskError(
                f"dataset {dataset.name!r} has no {split} tracks, expected some in each of"
                f" {', '.join(SPLITS)}",
                hint=f"add {dataset.name}.{split}.jsonl, or split again with `tune dataset scan`",
            )
        reasons = sorted({excluded[track.track_id] for track in lost})
        raise TaskError(
            f"task {task.name!r} has no {split} track to use: all {len(lost)} are left out"
            f" ({printable(', '.join(reasons))})",
            hint="see them with `tune dataset check` and `tune cache info`",
        )
