"""The cells of saved results, each thing once, compared with the one that validation chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_cache.cache.layout import Layout
from tune_cache.cache.usage import size_of
from tune_cache.commands.sweep_judging import Runs, judged
from tune_cache.errors import TuneCacheError
from tune_cache.probes.verdicts import Entry, choose_reference, judge
from tune_cache.reports.candidates import candidates_of
from tune_cache.reports.results import SavedRun
from tune_cache.reports.series import JudgedCell
from tune_cache.reports.sweeps import sweep_rows
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["JudgedTask", "judge_runs", "store_sizes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTask:
    """One task of one dataset.

    Parameters
    ----------
    cells
        In the order of their first runs.
    notes
        What could not be compared, and why.
    """

    dataset: str
    task: str
    cells: tuple[JudgedCell, ...]
    notes: tuple[str, ...] = ()


def store_sizes(layout: Layout, runs: Sequence[SavedRun]) -> dict[str, float]:
    """Bytes of each store that is still there, by encoder and name."""
    wanted = {
        f"{run.context.encoder}/{name}" for run in runs for name in run.context.store.split(" + ")
    }
    paths = {f"{path.parent.name}/{path.name}": path for path in layout.store_paths()}
    return {name: float(size_of(path)[0]) for name, path in paths.items() if name in wanted}


def judge_runs(layout: Layout, runs: Sequence[SavedRun], *, margin: float) -> list[JudgedTask]:
    """Compare the cells of each task; few-shot runs, which keep no predictions, are left out."""
    sizes = store_sizes(layout, runs)
    places = dict.fromkeys((run.context.dataset, run.result.task) for run in runs)
    tasks = []
    for dataset, task in places:
        mine = [run for run in runs if (run.context.dataset, run.result.task) == (dataset, task)]
        found, notes = _judged(layout, mine, sizes, margin)
        tasks.append(JudgedTask(dataset=dataset, task=task, cells=found, notes=notes))
    return tasks


def _judged(
    layout: Layout, runs: Sequence[SavedRun], sizes: Mapping[str, float], margin: float
) -> tuple[tuple[JudgedCell, ...], tuple[str, ...]]:
    cells = candidates_of(runs, sizes)
    if not cells:
        return (), ("few-shot results only, which compare with nothing",)
    by_id = {run.run_id: run for run in runs}
    several = [tuple(by_id[number] for number in cell.about["run_ids"]) for cell in cells]
    entries = [
        Entry(
            results=tuple(run.result for run in some),
            segs=(some[0].context.seg, *cell.about["same_seg"]),
            aggregations=(some[0].result.aggregation, *cell.about["same_aggregation"]),
        )
        for some, cell in zip(several, cells, strict=True)
    ]
    keyed = [(some, tuple(map(_key, some))) for some in several]
    reference = choose_reference(entries)
    found = _compared(keyed, reference, layout)
    kept = [place for place, pair in enumerate(found) if not isinstance(pair, TuneCacheError)]
    scores, comparisons = zip(*(found[place] for place in kept), strict=True)
    verdicts = judge(
        [entries[place] for place in kept],
        scores,
        comparisons,
        kept.index(reference),
        margin=margin,
    )
    rows = sweep_rows(verdicts, [several[place] for place in kept], margin=margin)
    return (
        tuple(
            JudgedCell(cell=cells[place], row=row) for place, row in zip(kept, rows, strict=True)
        ),
        tuple(
            f"not compared: {cells[place].name}: {error}"
            for place, error in enumerate(found)
            if isinstance(error, TuneCacheError)
        ),
    )


def _compared(
    keyed: Sequence[tuple[Runs, tuple[str, ...]]], reference: int, layout: Layout
) -> list[Any]:
    """Judge all at once, or where one fails each by itself; errors stand in place of results."""
    path, memory = layout.results_db, layout.comparisons
    try:
        return judged(keyed, reference, path=path, memory=memory, jobs=None)
    except TuneCacheError:
        pass
    found: list[Any] = []
    for place, item in enumerate(keyed):
        pair = [item] if place == reference else [item, keyed[reference]]
        try:
            found += judged(pair, len(pair) - 1, path=path, memory=memory, jobs=1)[:1]
        except TuneCacheError as error:
            found.append(error)
    return found


def _key(run: SavedRun) -> str:
    """What a comparison with this run depends on: the cell, or this very run."""
    told = [run.run_id, run.created, run.context.content_digest, run.result.to_json()]
    return run.context.cell_key or sha256_text(canonical_json(told))
