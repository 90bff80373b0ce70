"""``tune compare``: two result sets on the tracks they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cache.commands.context import Length, lengths, open_context, several
from tune_cache.commands.sweep_stores import label_of
from tune_cache.errors import StoreNotFoundError, UsageError, quoted
from tune_cache.probes.common import common_tracks
from tune_cache.probes.compare import (
    MARGIN,
    Comparison,
    TrackDifference,
    track_differences,
)
from tune_cache.probes.compare import compare as compare_cells
from tune_cache.probes.models import make_probe
from tune_cache.probes.result import ProbeResult
from tune_cache.probes.statistics import holm
from tune_cache.probes.verdicts import Entry, check_margin, choose_reference
from tune_cache.reports.candidates import configuration_of
from tune_cache.reports.results import SavedRun, load_run, newest_runs

__all__ = ["CompareReport", "Pair", "compare"]

AXES = ("encoder", "seg", "agg", "layer", "probe", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two configurations of one task.

    Parameters
    ----------
    first, second
        Runs, one a seed, without predictions: what validation chose of each side.
    comparisons, p_holm
        One a metric, first minus second; p corrected over the whole table.
    tracks
        On which the two differ, the largest difference first.
    """

    task: str
    first: tuple[SavedRun, ...]
    second: tuple[SavedRun, ...]
    comparisons: tuple[Comparison, ...]
    p_holm: tuple[float, ...]
    tracks: tuple[TrackDifference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareReport:
    """What ``tune compare`` found.

    Parameters
    ----------
    sides
        What the two are called, as ``encoder mel``.
    pairs
        One a task.
    margin
        Largest difference that does not matter.
    """

    dataset: str
    sides: tuple[str, str]
    pairs: tuple[Pair, ...]
    margin: float
    warnings: tuple[str, ...] = ()


def compare(
    dataset: str | Path | None = None,
    *,
    run: int | Sequence[int] = (),
    encoder: str | Sequence[str] = (),
    seg: Length | Sequence[Length] = (),
    agg: str | Sequence[str] = (),
    layer: str | int | Sequence[str | int] = (),
    probe: str | Sequence[str] = (),
    seed: int | Sequence[int] = (),
    task: str | Sequence[str] = (),
    margin: float | None = None,
    cache_dir: Path | str | None = None,
) -> CompareReport:
    """Compare saved results in pairs: two runs, or two values of one setting.

    The newest result of each configuration counts. Where a side has several
    configurations of a task, validation chooses one; its seeds go together.

    Parameters
    ----------
    dataset
        As for the other verbs; not needed with ``run``.
    run
        Numbers of two runs, as ``tune report --json`` tells them.
    encoder, seg, agg, layer, probe, seed
        One of these has two values, the sides; the others limit both.
    task
        Only these.
    margin
        Largest difference that does not matter; 0.02 if None.

    Raises
    ------
    UsageError
        If it is not clear which two to compare.
    StoreNotFoundError
        If a side has no result.
    """
    context = open_context(cache_dir)
    margin = float(context.setting("margin", margin, MARGIN))
    check_margin(margin)
    path = context.layout.results_db
    values: dict[str, tuple[str, ...]] = {
        "encoder": several(encoder),
        "seg": tuple(label_of(length) for length in lengths(several(seg))),
        "agg": several(agg),
        "layer": tuple(map(str, several(layer))),
        "probe": several(probe),
        "seed": tuple(map(str, several(seed))),
    }
    numbers = several(run)
    if numbers:
        name, sides, chosen = _two_runs(path, numbers, values)
    else:
        name = context.dataset(dataset).name
        sides, chosen = _two_sides(newest_runs(path, name), name, values)
    tasks = [item for item in chosen[0] if item in chosen[1]]
    wanted = several(task) or tuple(tasks)
    absent = [item for item in wanted if item not in tasks]
    if absent or not tasks:
        raise StoreNotFoundError(
            f"{sides[0]} and {sides[1]} have no results of the same task"
            + (f" {absent[0]!r}" if absent else ""),
            hint="`tune report` shows which results there are",
        )
    pairs = [_pair(item, chosen[0][item], chosen[1][item], path) for item in wanted]
    corrected = iter(holm([one.p for _, found, _ in pairs for one in found]))
    return CompareReport(
        dataset=name,
        sides=sides,
        pairs=tuple(
            Pair(
                task=item,
                first=tuple(chosen[0][item]),
                second=tuple(chosen[1][item]),
                comparisons=tuple(found),
                p_holm=tuple(next(corrected) for _ in found),
                tracks=tuple(tracks),
            )
            for item, found, tracks in pairs
        ),
        margin=margin,
    )


Chosen = Mapping[str, list[SavedRun]]  # of each task, the runs of one configuration


def _two_runs(
    path: Path, numbers: Sequence[int], values: Mapping[str, tuple[str, ...]]
) -> tuple[str, tuple[str, str], tuple[Chosen, Chosen]]:
    if len(numbers) != 2 or any(values.values()):
        raise UsageError(
            f"{len(numbers)} runs are given"
            + (" beside other flags" * any(values.values()))
            + ", expected two runs and nothing else",
            hint="as --run 3 --run 7",
        )
    first, second = (load_run(path, number) for number in numbers)
    where = [(run.context.dataset, run.result.task) for run in (first, second)]
    if where[0] != where[1]:
        told = ", ".join(f"run {n}: {' · '.join(w)}" for n, w in zip(numbers, where, strict=True))
        raise UsageError(
            f"the two runs are of different datasets or tasks ({told})",
            hint="`tune report --all --json` lists runs",
        )
    name, task = where[0]
    return name, (f"run {numbers[0]}", f"run {numbers[1]}"), ({task: [first]}, {task: [second]})


def _two_sides(
    runs: Sequence[SavedRun], dataset: str, values: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[str, str], tuple[Chosen, Chosen]]:
    """Split results by the one setting that has two values, and choose of each side."""
    axes = [axis for axis in AXES if len(values[axis]) > 1]
    if len(axes) != 1 or len(values[axes[0]]) != 2:
        raise UsageError(
            "it is not clear which two to compare: "
            + (", ".join(f"--{a} has {len(values[a])} values" for a in axes) or "one of each"),
            hint="give one setting twice, as --encoder muq --encoder mel, or two runs, as "
            "--run 3 --run 7",
        )
    (axis,) = axes
    common = [
        run
        for run in runs
        if run.result.shots is None  # these keep no predictions
        and all(
            other == axis or not values[other] or values[other][0] in _spellings(run, other)
            for other in AXES
        )
    ]
    sides = []
    for value in values[axis]:
        mine = [run for run in common if value in _spellings(run, axis)]
        if not mine:
            raise StoreNotFoundError(
                f"dataset {dataset!r} has no results with --{axis} {value}"
                + (" and the other flags" if any(values[a] for a in AXES if a != axis) else ""),
                hint=f"`tune sweep {quoted(dataset)} --{axis} {quoted(value)}` makes them",
            )
        sides.append(_chosen(mine))
    first, second = (f"{axis} {value}" for value in values[axis])
    return (first, second), (sides[0], sides[1])


def _spellings(run: SavedRun, axis: str) -> tuple[str, ...]:
    """What a user may call a run's value of a setting."""
    result = run.result
    if axis == "encoder":
        return (run.context.encoder,)
    if axis == "seg":
        return (run.context.seg,)
    if axis == "agg":
        return (result.aggregation,)
    if axis == "layer":
        return result.layer, result.layer_asked
    if axis == "seed":
        return (str(result.seed),)
    automatic = make_probe("auto", result.kind)[0] == result.probe
    return (result.probe, "auto") if automatic else (result.probe,)


def _chosen(runs: Sequence[SavedRun]) -> dict[str, list[SavedRun]]:
    """Of each task the configuration with the best validation score, all its seeds."""
    configurations: dict[str, dict[Any, list[SavedRun]]] = {}
    for run in runs:
        by_key = configurations.setdefault(run.result.task, {})
        by_key.setdefault(configuration_of(run), []).append(run)
    chosen = {}
    for task, by_key in configurations.items():
        groups = list(by_key.values())
        entries = [
            Entry(results=tuple(run.result for run in some), segs=(), aggregations=())
            for some in groups
        ]
        chosen[task] = sorted(groups[choose_reference(entries)], key=lambda run: run.result.seed)
    return chosen


def _pair(
    task: str, first: Sequence[SavedRun], second: Sequence[SavedRun], path: Path
) -> tuple[str, list[Comparison], list[TrackDifference]]:
    """Compare by every metric that both have."""
    cells: list[list[ProbeResult]] = [
        [load_run(path, run.run_id).result for run in runs] for runs in (first, second)
    ]
    names = [
        name
        for name, metric in common_tracks(*cells).metrics.items()
        if name in cells[1][0].scores["test"] and metric.larger_is_better
    ]
    found = [compare_cells(*cells, metric=name) for name in names]
    return task, found, track_differences(*cells)
