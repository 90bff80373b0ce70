"""Few examples a class: which training tracks each repeat learns from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.errors import TaskError, UsageError, first_few
from tune_cache.probes.statistics import number_groups

if TYPE_CHECKING:
    from tune_cache.probes.tasks import TaskData

__all__ = ["draw_shots", "too_few"]

Array = np.ndarray[Any, np.dtype[Any]]


def draw_shots(data: TaskData, shots: int, repeats: int, *, seed: int) -> Iterator[Array]:
    """Draw ``shots`` training tracks of every class, or with every tag.

    Tracks of different groups first: five clips of one song are one example.
    A class with fewer tracks gives all it has. Repeat r depends on the seed and
    on r alone.

    Yields
    ------
    positions of training tracks, ascending, ``repeats`` times

    Raises
    ------
    UsageError
        If a number is not positive.
    TaskError
        If the task has no classes, or choices have no validation split.
    """
    if shots < 1 or repeats < 1:
        raise UsageError(f"shots are {shots!r} and repeats {repeats!r}, expected 1 or more of each")
    if data.kind == "regression":
        raise TaskError(
            f"task {data.name!r} is regression: shots are tracks a class",
            hint="leave out --shots, or choose another --task",
        )
    if data.folds is not None:
        raise TaskError(
            f"task {data.name!r} has no validation split, which a choice with few shots needs",
            hint="add one, or leave out --shots",
        )
    train = data.splits["train"]
    if data.kind == "multiclass":
        members = [np.flatnonzero(train.truth == number) for number in range(len(data.classes))]
    else:
        members = [np.flatnonzero(column > 0) for column in train.truth.T]
    group_of, _ = number_groups(train.groups)
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        chosen = [_of_one(rng.permutation(some), group_of, shots) for some in members]
        yield np.unique(np.concatenate(chosen))


def _of_one(shuffled: Array, group_of: Array, shots: int) -> Array:
    """The first of each group in order, then the second of each, …"""
    rank = np.zeros(len(shuffled), dtype=np.int64)
    seen: dict[int, int] = {}
    for place, group in enumerate(group_of[shuffled].tolist()):
        rank[place] = seen.get(group, 0)
        seen[group] = rank[place] + 1
    return np.asarray(shuffled[np.argsort(rank, kind="stable")][:shots])


def too_few(data: TaskData, shots: int) -> str:
    """Say which classes have fewer training tracks than asked for, if any."""
    truth = data.splits["train"].truth
    counts = np.bincount(truth) if data.kind == "multiclass" else truth.sum(axis=0)
    few = [data.classes[number] for number in np.flatnonzero(counts < shots)]
    if not few:
        return ""
    return f"{len(few)} classes have fewer than {shots} training tracks ({first_few(few)})"
