"""Saved runs, or the published table, as cells that an advice chooses from.

Conventions
-----------
A cell is one configuration, all its seeds together. What is one thing by
definition is one cell: aggregations where no track has more than one segment,
lengths that cut every track alike, a layer that was named and chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from tune_cache.probes.result import ProbeResult
from tune_cache.probes.sweep import gives_one_back
from tune_cache.reports.cost import Costs, costs_of
from tune_cache.reports.front import Candidate
from tune_cache.reports.published import HARDWARE, LABELS, PublishedRow
from tune_cache.reports.results import SavedRun
from tune_cache.reports.runs import without_leaks
from tune_cache.reports.tables import with_options
from tune_cache.specs import canonical_json

__all__ = ["candidates_of", "configuration_of", "published_candidates"]

GIGA = 1e9


def configuration_of(run: SavedRun) -> Hashable:
    """What runs of one cell share; all but the seed."""
    result, context = run.result, run.context
    return (
        context.spec_key,
        context.pooling,
        result.aggregation,
        str(result.aggregation_options),
        result.probe,
        result.layer_asked,
        result.layer if result.layer_asked == "all" else "",
        without_leaks(result),
    )


def candidates_of(
    runs: Iterable[SavedRun], disk_bytes: Mapping[str, float] | None = None
) -> list[Candidate]:
    """Make the cells of one task, each thing once.

    Parameters
    ----------
    runs
        Newest of each configuration. Few-shot runs are left out: they are means
        over draws and keep no predictions.
    disk_bytes
        Of each store, by its name; of a store that is gone it is unknown.
    """
    cells: dict[Hashable, list[SavedRun]] = {}
    for run in runs:
        if run.result.shots is None:
            cells.setdefault(configuration_of(run), []).append(run)
    sizes = disk_bytes or {}
    found = [
        _candidate(sorted(some, key=lambda run: run.result.seed), sizes) for some in cells.values()
    ]
    for sameness in (_same_setting, _same_outcome):
        found = _merged(found, sameness)
    return found


def _candidate(runs: Sequence[SavedRun], sizes: Mapping[str, float]) -> Candidate:
    first, context = runs[0].result, runs[0].context
    results = tuple(run.result for run in runs)
    metric = first.metric
    stores = context.store.split(" + ")
    on_disk = [sizes.get(f"{context.encoder}/{name}") for name in stores]
    known = [size for size in on_disk if size is not None]
    name = _name(runs)
    return Candidate(
        name=name,
        value=mean(result.scores["val"][metric].value for result in results),
        costs=costs_of(context.cost, disk_bytes=sum(known) if len(known) == len(stores) else None),
        n_features=first.n_features,
        results=results,
        flags=first.flags,
        about={
            "dataset": context.dataset,
            "task": first.task,
            "encoder": context.encoder,
            "note": context.note,
            "seg": context.seg,
            "same_seg": [],
            "aggregation": first.aggregation,
            "same_aggregation": [],
            "aggregation_options": dict(first.aggregation_options),
            "probe": first.probe,
            "layer": ", ".join(dict.fromkeys(result.layer for result in results)),
            "layer_asked": first.layer_asked,
            "seeds": [result.seed for result in results],
            "run_ids": [run.run_id for run in runs],
            "same_run_ids": [],
            "metric": metric,
            "n_val": first.n["val"],
            "n_test": first.n["test"],
            "store": context.store,
            "spec_key": context.spec_key,
            "pooling": context.pooling,
        },
    )


def _name(runs: Sequence[SavedRun]) -> str:
    """A configuration in words, as short as it can be told apart."""
    result, context = runs[0].result, runs[0].context
    aggregation = with_options(result.aggregation, result.aggregation_options)
    layers = "/".join(dict.fromkeys(run.result.layer for run in runs))
    found = f" ({result.layer_asked})" if result.layer_asked in ("best", "last") else ""
    where = f"{context.encoder}, seg {context.seg}"
    name = f"{where}, {aggregation}, {result.probe}, layer {layers}{found}"
    return f"{name}, without leaks" if without_leaks(result) else name


def _same_setting(cell: Candidate) -> Hashable:
    """Equal if the vectors and the probe are one: whatever layer or aggregation was named."""
    about, first = cell.about, cell.results[0]
    one = first.share_one_segment == 1.0 and gives_one_back(first.aggregation)
    return (
        about["spec_key"],
        about["pooling"],
        "" if one else (first.aggregation, str(first.aggregation_options)),
        without_leaks(first),
        *_probed(cell.results),
    )


def _same_outcome(cell: Candidate) -> Hashable:
    """Equal for lengths of one segment a track under which everything that was saved is equal."""
    if any(result.share_one_segment < 1.0 for result in cell.results):
        return cell.name
    outcome = [
        {
            "scores": {s: {m: x.value for m, x in by.items()} for s, by in result.scores.items()},
            "curve": dict(result.layer_curve),
            "confusion": result.confusion,
            "n": dict(result.n),
        }
        for result in cell.results
    ]
    about = cell.about
    return (about["encoder"], about["pooling"], str(outcome), *_probed(cell.results))


def _probed(results: Sequence[ProbeResult]) -> tuple[Hashable, ...]:
    return tuple(
        (result.probe, result.layer, result.seed, canonical_json(dict(result.params)))
        for result in results
    )


def _merged(
    cells: Sequence[Candidate], sameness: Callable[[Candidate], Hashable]
) -> list[Candidate]:
    """One cell for each thing: of the fewest features, a mean if there is one, least cost."""
    groups: dict[Hashable, list[Candidate]] = {}
    for cell in cells:
        groups.setdefault(sameness(cell), []).append(cell)
    merged = []
    for some in groups.values():
        first, *others = sorted(some, key=_plainest)
        names = [*first.same, *(name for cell in others for name in (cell.name, *cell.same))]
        about = {**first.about}
        for one in ("seg", "aggregation"):
            every = [
                x
                for cell in (first, *others)
                for x in (cell.about[one], *cell.about[f"same_{one}"])
            ]
            about[f"same_{one}"] = [x for x in dict.fromkeys(every) if x != about[one]]
        about["same_run_ids"] = [
            number
            for cell in (first, *others)
            for number in (*cell.about["run_ids"], *cell.about["same_run_ids"])
            if number not in first.about["run_ids"]
        ]
        merged.append(dataclasses.replace(first, same=tuple(dict.fromkeys(names)), about=about))
    return merged


def _plainest(cell: Candidate) -> tuple[Any, ...]:
    costs = cell.costs
    spent = (costs.memory_bytes, costs.seconds, costs.disk_bytes)
    unknown = sum(value is None for value in spent)
    is_no_mean = cell.about["aggregation"] != "mean"
    return (cell.n_features, is_no_mean, unknown, *(value or 0.0 for value in spent), cell.name)


def published_candidates(rows: Iterable[PublishedRow]) -> list[Candidate]:
    """Make cells of the published table: scores and costs, no predictions, no validation.

    The score is the mean of the published ones, on test: choosing by it is what
    the study could do, and optimistic. Seconds are as published, of a whole
    dataset.
    """
    return [
        Candidate(
            name=row.aggregation if row.seg == "full" else f"seg {row.seg}, {row.aggregation}",
            value=row.mean_score(),
            costs=Costs(
                memory_kind="vram",
                memory_bytes=row.vram_gb * GIGA,
                seconds=row.seconds,
                device=HARDWARE,
            ),
            flags=(*LABELS, *row.flags),
            about={
                "dataset": row.dataset,
                "task": row.dataset,
                "encoder": "muq",
                "seg": row.seg,
                "aggregation": row.aggregation,
                "metric": "accuracy" if "accuracy" in row.scores else "r2",
            },
        )
        for row in rows
    ]
