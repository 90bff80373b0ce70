"""What a sweep is asked for: flags, preset and settings file, checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tune_cache.aggregation.registry import MULTISCALE
from tune_cache.commands.context import Context, Length, several
from tune_cache.commands.sweep_cells import Asked, probes_for
from tune_cache.datasets.base import Dataset
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.shots import draw_shots
from tune_cache.probes.tasks import load_task
from tune_cache.probes.verdicts import check_margin

__all__ = ["axis", "check"]


def axis(
    context: Context, preset: str | None, name: str, given: Any, default: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Values of one axis, each once: as given, else of a preset, else of the settings file."""
    values = several(given)
    if not values and not preset:
        values = several(context.setting(name, (), ()))
    return tuple(dict.fromkeys(values or default))


def check(
    dataset: Dataset, asked: Asked, seg: Sequence[Length], *, margin: float, jobs: int | None
) -> tuple[Asked, list[str]]:
    """Refuse what can only go wrong, before anything is encoded.

    Returns
    -------
    what remains of the grid, and what is left out
    """
    if not dataset.tasks:
        raise TaskError(
            f"dataset {dataset.name!r} has no task: its records have no 'label'",
            hint="say which keys are labels under [datasets.NAME.tasks.T] in tune.toml",
        )
    kinds = {name: dataset.task(name).kind for name in asked.tasks}
    for kind in kinds.values():
        probes_for(asked.probes, kind)
    together = [name for name in asked.aggregations if name in MULTISCALE]
    if together and len(seg) == 1:
        raise UsageError(
            f"aggregation {together[0]!r} needs two segment lengths or more, found one",
            hint="ask for another, as with --seg 10 --seg 30",
        )
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs is {jobs!r}, expected 1 or more")
    few = [number for number in asked.shots if number is not None]
    wrong = [number for number in few if min(number, asked.repeats) < 1]
    if wrong:
        raise UsageError(
            f"shots are {wrong[0]!r} and repeats {asked.repeats!r}, expected 1 or more of each"
        )
    check_margin(margin)
    left_out = [name for name, kind in kinds.items() if few and kind == "regression"]
    if left_out and len(left_out) == len(kinds):
        raise TaskError(
            f"task {left_out[0]!r} is regression: shots are tracks a class",
            hint="leave out --shots, or choose another --task",
        )
    tasks = tuple(name for name in asked.tasks if name not in left_out)
    for name in tasks:
        data = load_task(dataset, dataset.task(name))  # of all tracks: labels and splits
        for number in few:
            next(draw_shots(data, number, 1, seed=0))
    said = [
        f"task {name!r} is regression, and shots are tracks a class: it is left out"
        for name in left_out
    ]
    return dataclasses.replace(asked, tasks=tasks), said
