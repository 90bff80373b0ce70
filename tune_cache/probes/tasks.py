"""From a dataset's labels to numbers a probe can learn, split by split.

Conventions
-----------
Classes, and tags, are those of *training* tracks, sorted by their text. A class
first met in validation or test gets a number behind them, so that its tracks
stay in every denominator and count as errors; a tag first met there cannot be
scored, and is said. A track without tags is a track. Tracks without a label or
without vectors are left out and named, never filled in. A dataset without a
validation split has folds of its training tracks instead, no group in two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
N_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitData:
    """Labels of one split, tracks in the order of their ids.

    Parameters
    ----------
    groups
        One a track: what a bootstrap draws.
    truth : of shape (n_tracks,), int64, or (n_tracks, n_targets or n_tags), float64
        Numbers of classes; targets; 1 where a track has a tag, else 0.
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
        Classes or tags of the training tracks; empty for regression.
    unseen
        Those of other splits that no training track has; classes are numbered on
        from ``len(classes)``.
    targets
        Names of the regression targets; empty for classes.
    metrics
        The first is the one that choices are made by.
    splits
        ``train``, ``val`` and ``test``, none empty; without ``val`` there are folds.
    excluded
        Id of each track left out → why, ``no label`` or the store's reason.
    folds : of shape (n_train,), int64
        Fold of each training track, where there is no validation split.
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    metrics: tuple[Metric, ...]
    splits: Mapping[str, SplitData]
    excluded: Mapping[str, str]
    folds: Array | None = None

    def decode(self, value: Any) -> str | tuple[float, ...]:
        """Turn one row of ``truth``, or of a prediction, back into a label.

        Tags stay numbers, one for each of ``classes``: 1 or 0, or a score.
        """
        if self.kind != "multiclass":
            return tuple(float(item) for item in value)
        return (self.classes + self.unseen)[int(value)]

    def warnings(self) -> tuple[str, ...]:
        """Say what a reader of the scores must know about the labels."""
        found = [text for name in self.splits for text in self._of_labels(name)]
        if self.kind == "multilabel" and self.unseen:
            found.append(
                f"{len(self.unseen)} tags occur in no training track ({first_few(self.unseen)});"
                " they are not scored"
            )
        if self.folds is not None:
            found.append(
                f"no validation split: choices are made on {int(self.folds.max()) + 1} folds of"
                " the training tracks, by group"
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

    def _of_labels(self, name: str) -> Iterator[str]:
        """What is odd about the labels of one split."""
        split = self.splits[name]
        if self.kind == "multiclass":
            n_new = int((split.truth >= len(self.classes)).sum())
            if n_new:
                new = sorted({self.decode(value) for value in split.truth} & set(self.unseen))
                yield (
                    f"{n_new} of {len(split)} {name} tracks have classes that no training track"
                    f" has ({first_few(new)}); they count as errors"
                )
        if self.kind == "multilabel" and name != "train":
            n_marked = split.truth.sum(axis=0)
            flat = np.flatnonzero((n_marked == 0) | (n_marked == len(split)))
            if len(flat):
                tags = first_few([self.classes[tag] for tag in flat])
                yield (
                    f"{len(flat)} of {len(self.classes)} tags are on none or on all of the"
                    f" {len(split)} {name} tracks ({tags}); they are in no mean over tags"
                )


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
        If a split is left without tracks, a label does not fit the kind, training
        tracks have fewer than two classes or no tag, or there is neither a
        validation split nor a second group to make folds of.
    """
    if task.kind == "regression" and not task.targets:
        raise TaskError(f"task {task.name!r} is regression without names of targets")
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
    has_val = any(track.split == "val" for track in dataset.tracks)
    if not has_val:
        del usable["val"]
    _refuse_empty(dataset, task, usable, excluded)
    labels = {split: [_label(track, task) for track in tracks] for split, tracks in usable.items()}
    classes, unseen = _classes(task, labels)
    number = {label: index for index, label in enumerate(classes + unseen)}
    splits = {
        split: SplitData(
            track_ids=tuple(track.track_id for track in tracks),
            groups=tuple(track.group for track in tracks),
            truth=_encoded(task, labels[split], number, len(classes)),
        )
        for split, tracks in usable.items()
    }
    return TaskData(
        name=task.name,
        kind=task.kind,
        classes=classes,
        unseen=unseen,
        targets=task.targets,
        metrics=metrics_of(task.kind, task.targets, task.metrics, classes=classes + unseen),
        splits=splits,
        excluded=excluded,
        folds=None if has_val else _folds(splits["train"], task),
    )


def _classes(
    task: Task, labels: Mapping[str, Sequence[Any]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of classes or tags: those of train, and those met elsewhere only."""
    if task.kind == "regression":
        return (), ()
    names = {
        split: set(values)
        if task.kind == "multiclass"
        else {tag for tags in values for tag in tags}
        for split, values in labels.items()
    }
    classes = sorted(names["train"])
    if task.kind == "multiclass" and len(classes) < 2:
        raise TaskError(
            f"task {task.name!r} has one class in train, {classes[0]!r}; expected two or more",
            hint="check the splits with `tune dataset info`",
        )
    if not classes:
        raise TaskError(
            f"task {task.name!r} has no tag on any training track",
            hint="check the labels with `tune dataset info`",
        )
    return tuple(classes), tuple(sorted(set().union(*names.values()) - names["train"]))


def _encoded(task: Task, labels: Sequence[Any], number: Mapping[str, int], n_classes: int) -> Array:
    """Labels of one split as numbers."""
    if task.kind == "multiclass":
        return np.array([number[label] for label in labels], dtype=np.int64)
    if task.kind == "regression":
        return np.array(labels, dtype=np.float64)
    truth = np.zeros((len(labels), n_classes))
    for row, tags in zip(truth, labels, strict=True):
        row[[number[tag] for tag in tags if number[tag] < n_classes]] = 1.0
    return truth


def _folds(train: SplitData, task: Task) -> Array:
    """Deal groups to folds, the largest first, each where its classes are fewest."""
    groups: dict[str, list[int]] = {}
    for place, group in enumerate(train.groups):
        groups.setdefault(group, []).append(place)
    n_folds = min(N_FOLDS, len(groups))
    if n_folds < 2:
        raise TaskError(
            f"task {task.name!r} has no validation split and one group in train,"
            f" {train.groups[0]!r}: nothing can be chosen",
            hint="add a validation split, or say in the manifest which tracks belong together",
        )
    is_class = task.kind == "multiclass"
    strata = train.truth if is_class else np.zeros(len(train), dtype=np.int64)
    filled = np.zeros((n_folds, int(strata.max()) + 1))
    folds = np.zeros(len(train), dtype=np.int64)
    for group in sorted(groups, key=lambda name: (-len(groups[name]), name)):
        counts = np.bincount(strata[groups[group]], minlength=filled.shape[1])
        crowd = filled @ counts + filled.sum(axis=1) / (1 + len(train))
        folds[groups[group]] = chosen = int(crowd.argmin())
        filled[chosen] += counts
    return folds


def _label(track: Track, task: Task) -> str | tuple[str, ...] | tuple[float, ...]:
    """One track's label: the text of a class, tags, or a number for every target."""
    raw = track.labels[task.name]
    if task.kind == "multiclass":
        if isinstance(raw, str | int):
            return str(raw)
        expected = "a text or an integer"
    elif task.kind == "multilabel":
        if isinstance(raw, list | tuple) and all(isinstance(tag, str) for tag in raw):
            return tuple(raw)
        expected = "a list of texts"
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
    for split, tracks in usable.items():
        if tracks:
            continue
        lost = [track for track in dataset.tracks if track.split == split]
        if not lost:
            raise TaskError(
                f"dataset {dataset.name!r} has no {split} tracks, expected some in each of"
                f" {', '.join(usable)}",
                hint=f"add {dataset.name}.{split}.jsonl, or split again with `tune dataset scan`",
            )
        reasons = sorted({excluded[track.track_id] for track in lost})
        raise TaskError(
            f"task {task.name!r} has no {split} track to use: all {len(lost)} are left out"
            f" ({printable(', '.join(reasons))})",
            hint="see them with `tune dataset check` and `tune cache info`",
        )
