"""``tune probe``: fit light probes on stored vectors, choose on validation, score on test."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tune_cache.aggregation.registry import MULTISCALE, make_aggregation
from tune_cache.cache.store import Store
from tune_cache.commands.context import Length, lengths, open_context, several
from tune_cache.commands.probe_stores import context_of, stores_to_probe
from tune_cache.datasets.base import Dataset, Task
from tune_cache.errors import StoreError, TaskError, UsageError
from tune_cache.probes.evaluate import N_REPEATS, run_probe
from tune_cache.probes.features import Features, derived, joined, n_derived, read_features
from tune_cache.probes.guard import Leaks, find_leaks
from tune_cache.probes.result import ProbeResult
from tune_cache.probes.tasks import TaskData, load_task
from tune_cache.reports.results import RunContext, SavedRun, load_run, save_result

__all__ = ["ProbeReport", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What ``tune probe`` found.

    Parameters
    ----------
    dataset
        That was probed.
    runs
        One a configuration, as saved, with predictions.
    warnings
        What the user should know about how the stores were found.
    """

    dataset: Dataset
    runs: tuple[SavedRun, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Source:
    """Vectors and labels that belong together, and where they are from."""

    data: TaskData
    features: Features
    where: RunContext
    aggregations: tuple[str, ...]
    warnings: tuple[str, ...]


def probe(
    dataset: str | Path | None = None,
    *,
    task: str | Sequence[str] = (),
    agg: str | Sequence[str] = (),
    layer: str | int | Sequence[str | int] = (),
    probe: str | Sequence[str] = (),
    seed: int | Sequence[int] = (),
    seg: Length | Sequence[Length] = (),
    encoder: str | None = None,
    store: Path | None = None,
    max_segments: int | None = None,
    fill: str | None = None,
    derive: float | Sequence[float] = (),
    shots: int | Sequence[int] = (),
    repeats: int | None = None,
    strict: bool = False,
    drop_leaks: bool = False,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
    on_start: Callable[[Dataset], None] | None = None,
    on_result: Callable[[SavedRun], None] | None = None,
) -> ProbeReport:
    """Probe a dataset's stores with every combination of what is given.

    Parameters
    ----------
    dataset
        As for :func:`~tune_cache.commands.extract.extract`.
    task
        Names; all tasks of the dataset if empty.
    agg
        Aggregations of segments to tracks; ``mean`` if empty. ``multiscale-…``
        takes all segment lengths at once, the others each length by itself.
    layer
        Indices, ``last``, ``mean``, ``best`` or ``all``; ``best`` if empty.
    probe
        ``auto``, one of :data:`~tune_cache.probes.models.PROBES`, or a
        scikit-learn estimator by its dotted path.
    seg
        Segment lengths; every length that a store at hand has if empty.
    encoder
        The dataset's own if None, or the only one that has stores.
    store
        Exactly this store.
    max_segments, fill
        Segments that concat keeps of each track, and how it fills up those that
        have fewer: ``draw``, ``mean`` or ``zero``.
    derive
        Lengths in seconds: runs of shorter segments are averaged to segments of
        this length, a row of its own beside the stored one.
    shots, repeats
        Learn from so many tracks a class, drawn so many times (10 if None).
    strict, drop_leaks
        Where tracks of one group or file, or near-duplicates, are in two splits:
        refuse, or leave out those in the split that is learnt from. Neither: say so.
    on_start, on_result
        Called once before the work, and with each finished run.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError
        If no store serves, or several encodings do.
    TaskError
        If labels or splits cannot support the probe, or under ``strict`` leak.
    """
    context = open_context(cache_dir)
    choose = context.setting
    loaded = context.dataset(dataset, data_root=data_root, allow_outside_root=allow_outside_root)
    if on_start is not None:
        on_start(loaded)
    if not loaded.tasks:
        raise TaskError(
            f"dataset {loaded.name!r} has no task: its records have no 'label'",
            hint="say which keys are labels under [datasets.NAME.tasks.T] in tune.toml",
        )
    names = choose("task", several(task), tuple(item.name for item in loaded.tasks))
    tasks = [loaded.task(name) for name in names]
    aggregations = choose("agg", several(agg), ("mean",))
    of_concat = {
        "max_segments": choose("max_segments", max_segments),
        "fill": choose("fill", fill),
    }
    options = {name: _options(name, of_concat) for name in aggregations}
    derives = choose("derive", several(derive), ())
    stores, warnings = stores_to_probe(
        context,
        loaded,
        given=loaded.name if dataset is None else os.fspath(dataset),
        seg=lengths(choose("seg", several(seg), ())),
        encoder=encoder,
        store=store,
    )
    for seconds in derives:
        if not any(n_derived(found.spec.segments, seconds) for found in stores):
            raise UsageError(
                f"no store serves to derive segments of {seconds:g} s",
                hint="extract without overlap at a half, a third, … of that length",
            )
    cells = list(
        itertools.product(
            choose("probe", several(probe), ("auto",)),
            choose("layer", several(layer), ("best",)),
            choose("seed", several(seed), (1234,)),
            choose("shots", several(shots), (None,)),
        )
    )
    runs = []
    for source in _sources(
        loaded,
        tasks,
        stores,
        tuple(aggregations),
        derives,
        strict=strict or choose("strict", None, False),
        drop=drop_leaks or choose("drop_leaks", None, False),
    ):
        for aggregation, cell in itertools.product(source.aggregations, cells):
            name, policy, number, few = cell
            results = run_probe(
                source.features,
                source.data,
                aggregation=aggregation,
                aggregation_options=options[aggregation],
                probe=name,
                layer=policy,
                seed=number,
                shots=few,
                repeats=choose("repeats", repeats, N_REPEATS),
            )
            for result in results:
                told = dataclasses.replace(result, warnings=(*result.warnings, *source.warnings))
                run, problem = _saved(context.layout.results_db, told, source.where)
                warnings += [problem] if problem and problem not in warnings else []
                runs.append(run)
                if on_result is not None:
                    on_result(run)
    return ProbeReport(dataset=loaded, runs=tuple(runs), warnings=tuple(warnings))


def _options(aggregation: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that an aggregation takes; a wrong name is found before anything is read."""
    takes = make_aggregation(aggregation).get_params()
    options = {name: value for name, value in given.items() if value is not None and name in takes}
    make_aggregation(aggregation, **options)
    return options


def _sources(
    dataset: Dataset,
    tasks: Sequence[Task],
    stores: Sequence[Store],
    aggregations: tuple[str, ...],
    derive: Sequence[float],
    *,
    strict: bool,
    drop: bool,
) -> Iterator[_Source]:
    """Read each store for each task; then all of a task together, where that is asked for."""
    alone = tuple(name for name in aggregations if name not in MULTISCALE)
    together = tuple(name for name in aggregations if name in MULTISCALE)
    for task in tasks:
        every_status: dict[str, str] = {}
        said: dict[str, None] = {}
        for store in stores:
            status, leaks, data, features = _guarded(dataset, task, store, strict=strict, drop=drop)
            for name, why in status.items():
                if every_status.get(name, "ok") == "ok":
                    every_status[name] = why
            told = tuple(leaks.warnings({split: len(part) for split, part in data.splits.items()}))
            said |= dict.fromkeys(told)
            where = context_of(dataset, (store,))
            variants = [features]
            spec = store.spec.segments
            variants += [
                derived(features, spec, seconds) for seconds in derive if n_derived(spec, seconds)
            ]
            for one in variants if alone else ():
                yield _Source(
                    data=data, features=one, where=where, aggregations=alone, warnings=told
                )
        if together:
            data = load_task(dataset, task, every_status)
            yield _Source(
                data=data,
                features=joined([read_features(store, data) for store in stores]),
                where=context_of(dataset, stores),
                aggregations=together,
                warnings=tuple(said),
            )


def _guarded(
    dataset: Dataset, task: Task, store: Store, *, strict: bool, drop: bool
) -> tuple[dict[str, str], Leaks, TaskData, Features]:
    """Labels and vectors of a store, its status, and leaks that remain."""
    status = dict(store.status)
    data = load_task(dataset, task, status)
    features = read_features(store, data)
    leaks = find_leaks(data, store.audio_of, features, thorough=strict or drop)
    if leaks.pairs and drop:
        status |= leaks.to_drop
        data = load_task(dataset, task, status)
        return status, Leaks(), data, read_features(store, data)
    if leaks.pairs and strict:
        counts = {split: len(part) for split, part in data.splits.items()}
        texts = [text.partition(":")[0] for text in leaks.warnings(counts)]
        raise TaskError(
            f"splits of task {task.name!r} leak: {'; '.join(texts)}",
            hint="--drop-leaks leaves out the tracks of the split that is learnt from",
        )
    return status, leaks, data, features


def _saved(path: Path, result: ProbeResult, where: RunContext) -> tuple[SavedRun, str]:
    """Save a result; where that fails it is still shown, with the reason."""
    try:
        return load_run(path, save_result(path, result, where)), ""
    except (StoreError, OSError) as error:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        run = SavedRun(run_id=0, created=created, context=where, result=result)
        return run, f"result is not saved: {error}"
