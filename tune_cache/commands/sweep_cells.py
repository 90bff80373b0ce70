"""The cells of a sweep: planned, found among earlier results, or worked out and saved.

Conventions
-----------
A cell is saved as soon as it is done, under a key of all that it depends on, so
an interrupted sweep resumes and a repeated one reads. What a cell predicted is
read from the results when a comparison asks for it: all of it would not fit.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tune_cache.cache.store import Store
from tune_cache.commands.memory import recall, remember
from tune_cache.commands.probe_stores import context_of
from tune_cache.commands.sweep_jobs import jobs_of
from tune_cache.commands.sweep_stores import Grid
from tune_cache.commands.training import AskedTraining
from tune_cache.datasets.base import Dataset
from tune_cache.errors import StoreError, TaskError, TuneCacheError
from tune_cache.probes.evaluate import layer_for
from tune_cache.probes.features import Features
from tune_cache.probes.models import PROBES, is_trained, make_probe
from tune_cache.probes.result import ProbeResult
from tune_cache.probes.sources import Found, Loader, OnLeaks, look, sources
from tune_cache.probes.sweep import (
    Cell,
    Evaluator,
    by_seed,
    cell_key,
    code_digest,
    merge_aggregations,
    task_digest,
)
from tune_cache.probes.tasks import TaskData
from tune_cache.probes.workers import run_all
from tune_cache.probes.workshop import HEADS, head_named, is_joint
from tune_cache.reports.results import RunContext, SavedRun, runs_of_cells, save_result
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["Asked", "Planned", "Ran", "plan", "probes_for", "run_cells"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The axes of a grid beside its stores, and what holds for all cells.

    Parameters
    ----------
    options
        Of each aggregation.
    derive
        Lengths that are averaged from shorter segments too.
    shots, repeats
        Training tracks a class, drawn so often; a None among shots learns from all.
    training
        What trained aggregations are trained with.
    """

    tasks: tuple[str, ...]
    aggregations: tuple[str, ...]
    probes: tuple[str, ...]
    layers: tuple[str, ...]
    seeds: tuple[int, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    derive: tuple[float, ...] = ()
    shots: tuple[int | None, ...] = (None,)
    repeats: int = 0
    on_leaks: OnLeaks = "tell"
    training: AskedTraining
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One row of a table to be.

    Parameters
    ----------
    segs, aggregations
        Those that are the same thing here; the cells are of the first.
    where
        The vectors are from, without the key of a cell.
    cells, keys
        One a seed.
    """

    task: str
    segs: tuple[str, ...]
    where: RunContext
    aggregations: tuple[str, ...]
    cells: tuple[Cell, ...]
    keys: tuple[str, ...]


@dataclass(slots=True)
class Ran:
    """What became of cells, by key.

    Parameters
    ----------
    runs
        Without predictions where these are saved.
    failed
        Why a cell has no result.
    n_remembered
        Cells that were there already.
    """

    runs: dict[str, SavedRun] = field(default_factory=dict)
    failed: dict[str, TuneCacheError] = field(default_factory=dict)
    n_remembered: int = 0
    warnings: list[str] = field(default_factory=list)


def plan(
    dataset: Dataset, grids: Sequence[tuple[Grid, Store]], asked: Asked, memory: Path
) -> tuple[list[Planned], list[str]]:
    """List the rows, each thing once, by task and in the order asked for.

    Parameters
    ----------
    memory
        Folder where it is kept which tracks leak.

    Returns
    -------
    the rows, and what is left out of the grid

    Raises
    ------
    TaskError
        If no probe asked for can learn a task, its labels cannot support any, or
        its splits leak and must not.
    """
    rows, warnings = [], []
    labels = {store.path: grid.labels for grid, store in grids}
    stores = [store for _, store in grids]
    loader = Loader(dataset, stores)
    for name in asked.tasks:
        task = dataset.task(name)
        _, unable = probes_for(asked.probes, task.kind)
        warnings += [
            f"task {name!r} is {task.kind}: probe {probe!r} is left out" for probe in unable
        ]
        found = sources(
            loader,
            task,
            stores,
            asked.aggregations,
            derive=asked.derive,
            on_leaks=asked.on_leaks,
            looking=partial(_looked, memory=memory),
        )
        for source, aggregations in found:
            where = context_of(dataset, loader.stores(source))
            digest = task_digest(loader.labels(source))
            one_segment = bool((loader.n_segments(source) == 1).all())
            together = len(source.stores) > 1
            segs = (where.seg,) if together else labels[source.stores[0]]
            kinds = (
                (names, *kind)
                for names in merge_aggregations(aggregations, one_segment=one_segment)
                for kind in _kinds(asked, task.kind, names[0], loader.stores(source))
            )
            for (names, probe, layer), shots in itertools.product(kinds, asked.shots):
                cells = tuple(
                    Cell(
                        source=source,
                        aggregation=names[0],
                        aggregation_options=asked.options.get(names[0], {}),
                        probe=probe,
                        probe_options={"checkpoint": asked.checkpoint} if is_trained(probe) else {},
                        layer=layer,
                        seed=seed,
                        shots=shots,
                        repeats=asked.repeats if shots else 0,
                        training=asked.training.of(names[0], loader.stores(source)),
                    )
                    for seed in asked.seeds
                )
                keys = tuple(
                    cell_key(
                        cell,
                        spec_key=where.spec_key,
                        content_digest=where.content_digest,
                        task=digest,
                    )
                    for cell in cells
                )
                rows.append(
                    Planned(
                        task=name,
                        segs=segs,
                        where=where,
                        aggregations=names,
                        cells=cells,
                        keys=keys,
                    )
                )
    return rows, warnings


def _kinds(
    asked: Asked, kind: str, aggregation: str, stores: Sequence[Store]
) -> Iterator[tuple[str, str]]:
    """Probe and layer of each cell; what is trained with a head has heads as probes."""
    options = asked.options.get(aggregation, {})
    possible = [layer_for(aggregation, layer)[0] for layer in asked.layers]
    stored = sorted(set.intersection(*(set(store.layers) for store in stores)))  # all keep these
    layers = _layers_of(possible, stored)
    joint = [layer for layer in layers if is_joint(aggregation, options, layer)]
    alone = [layer for layer in layers if layer not in joint]
    heads = dict.fromkeys(head_named(name) for name in asked.probes if name in ("auto", *HEADS))
    if alone:
        yield from itertools.product(probes_for(asked.probes, kind)[0], alone)
    yield from itertools.product(heads, joint)


def _looked(
    store: Store,
    data: TaskData,
    features: Callable[[], Features],
    thorough: bool,
    *,
    memory: Path,
) -> Found:
    """Look for leaks, or remember: it reads a layer and multiplies all tracks with all."""
    of = [
        store.spec.key,
        store.content_digest,
        sha256_text(canonical_json(sorted(store.audio_of.items()))),
        task_digest(data),
        thorough,
        code_digest(),
    ]
    place = memory / f"leaks-{sha256_text(canonical_json(of))[:32]}.json"
    kept = recall(place)
    if kept:
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            return Found(told=tuple(kept["told"]), to_drop=dict(kept["to_drop"]))
    found = look(store, data, features, thorough)
    remember(place, {"told": found.told, "to_drop": found.to_drop})
    return found


def probes_for(names: Sequence[str], kind: str) -> tuple[list[str], list[str]]:
    """Probes by their own names, each once, and those that cannot learn such a task.

    Raises
    ------
    TaskError
        If none can.
    """
    able: dict[str, None] = {}
    unable: list[str] = []
    first: TaskError | None = None
    for name in names:
        if name in HEADS and name not in PROBES:  # of what is trained with a head only
            continue
        try:
            able[make_probe(name, kind)[0]] = None
        except TaskError as error:
            unable.append(name)
            first = first or error
    if first is not None and not able:
        raise first
    return list(able), unable


def _layers_of(asked: Sequence[str], stored: Sequence[int]) -> list[str]:
    """Layers by policy or index, each once, as first spelled; ``all`` is every index."""
    found: dict[str, str] = {}
    for name in asked:
        for layer in map(str, stored) if name == "all" else [name]:
            meaning = str(stored[-1]) if layer == "last" else layer
            if meaning.startswith("-") and meaning[1:].isdecimal():
                place = int(meaning)
                meaning = str(stored[place]) if -len(stored) <= place else meaning
            found.setdefault(meaning, layer)
    return list(found.values())


def run_cells(
    dataset: Dataset,
    rows: Sequence[Planned],
    path: Path,
    *,
    jobs: int | None,
    on_cell: Callable[[int, int], None] | None = None,
) -> Ran:
    """Find the cells of all rows among saved results, and work out the others.

    Parameters
    ----------
    path
        Of the results.
    on_cell
        Called with the number of cells done and of all, after each.
    """
    ran = Ran()
    wanted = {
        key: (row, cell) for row in rows for key, cell in zip(row.keys, row.cells, strict=True)
    }
    ran.runs |= {run.context.cell_key: run for run in _remembered(path, dataset.name, wanted, ran)}
    ran.n_remembered = len(ran.runs)
    pending = [key for key in wanted if key not in ran.runs]
    groups = by_seed([wanted[key][1] for key in pending])
    items = [[wanted[pending[place]][1] for place in group] for group in groups]
    n_jobs = jobs_of(jobs, items)
    for number, found in run_all(Evaluator, (dataset, n_jobs), items, jobs=n_jobs):
        for position, place in enumerate(groups[number]):
            key = pending[place]
            if isinstance(found, TuneCacheError):
                ran.failed[key] = found
            else:
                where = replace(wanted[key][0].where, cell_key=key)
                ran.runs[key], problem = _saved(path, found[position], where)
                ran.warnings += [problem] if problem and problem not in ran.warnings else []
            if on_cell is not None:
                on_cell(len(ran.runs) + len(ran.failed), len(wanted))
    return ran


def _remembered(path: Path, dataset: str, keys: Iterable[str], ran: Ran) -> list[SavedRun]:
    try:
        return runs_of_cells(path, dataset, keys)
    except StoreError as error:
        ran.warnings.append(f"earlier results are not used: {error}")
        return []


def _saved(path: Path, result: ProbeResult, where: RunContext) -> tuple[SavedRun, str]:
    """Save a result and let go of its predictions; keep them where saving fails."""
    try:
        run_id, problem = save_result(path, result, where), ""
        result = replace(result, predictions=())
    except (StoreError, OSError) as error:
        run_id, problem = 0, f"results are not saved: {error}"
    return SavedRun(run_id=run_id, created="", context=where, result=result), problem
