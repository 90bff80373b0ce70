"""``tune report --html``: looks up what a page shows, has it drawn, writes the file.

Conventions
-----------
A page is made from results alone if it must be: what is gone (stores, manifests) is
missing on the page and said there, and is no error.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tune_cache import __version__
from tune_cache.cache.disk import write_durably
from tune_cache.commands.context import Context
from tune_cache.commands.page_stores import Opened, facts_of, leaks_of, map_of
from tune_cache.commands.sweep_judging import judged
from tune_cache.commands.training import read_weights
from tune_cache.datasets.base import Dataset
from tune_cache.errors import TuneCacheError, UsageError
from tune_cache.probes.compare import MARGIN, Comparison, score_of
from tune_cache.probes.metrics import Score
from tune_cache.probes.verdicts import Entry, check_margin, choose_reference, judge
from tune_cache.reports.page.model import PageContent, TaskResults, TrackMap
from tune_cache.reports.page.render import render_page
from tune_cache.reports.results import SavedRun, load_run
from tune_cache.reports.runs import without_leaks
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["cells_of", "write_page"]

Runs = tuple[SavedRun, ...]
Attention = Mapping[str, Sequence[float]]


def write_page(
    path: Path | str,
    context: Context,
    runs: Sequence[SavedRun],
    datasets: Mapping[str, Dataset],
    *,
    name: str | None,
    given: Mapping[str, str] | None = None,
    command: str = "",
    attention: Attention | Path | str | None = None,
    missing: Sequence[str] = (),
) -> Path:
    """Write the page of some results.

    Parameters
    ----------
    path
        An existing file is replaced in one step.
    runs
        The newest of each configuration.
    datasets
        Those that could be loaded, by name.
    name
        Of the one dataset; None for all.
    given
        How each dataset was told on the command line, where not by its name.
    attention
        Weights over segments, by track id; or a file of them.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    content = page_content(
        context, runs, datasets, name=name, given=given, command=command, attention=attention,
        missing=missing,
    )  # fmt: skip
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, render_page(content).encode("utf-8"))
    except OSError as error:
        raise UsageError(
            f"page {str(path)!r} cannot be written: {error}",
            hint="give --html a file in a folder that you may write to",
        ) from error
    return path


def page_content(
    context: Context,
    runs: Sequence[SavedRun],
    datasets: Mapping[str, Dataset],
    *,
    name: str | None,
    given: Mapping[str, str] | None = None,
    command: str = "",
    attention: Attention | Path | str | None = None,
    missing: Sequence[str] = (),
) -> PageContent:
    """Look up everything that :func:`write_page` draws."""
    margin = float(context.setting("margin", None, MARGIN))
    check_margin(margin)
    lacks = list(missing)
    weights_of = _attention(attention)
    opened = Opened(context.layout)
    stores = facts_of(runs, opened)
    tasks: list[TaskResults] = []
    maps: list[TrackMap] = []
    leaks: dict[tuple[str, str], Sequence[str]] = {}
    for place in dict.fromkeys((run.context.dataset, run.result.task) for run in runs):
        mine = [run for run in runs if (run.context.dataset, run.result.task) == place]
        found = task_results(context, mine, margin)
        if found is None:
            lacks.append(f"{' · '.join(place)}: few-shot results only, which compare with nothing")
            continue
        tasks.append(found)
        dataset = datasets.get(place[0])
        reference = found.runs[found.reference]
        try:
            store = opened.of(reference[0].context)
            weights = weights_of(*place, store.spec.segments.label)
            drawn = map_of(found, store, dataset, weights)
            maps += [drawn] if drawn is not None else []
            if dataset is not None:
                leaks[place] = leaks_of(dataset, place[1], store)
        except TuneCacheError as error:
            lacks.append(f"{' · '.join(place)}: no map of tracks and no search for leaks: {error}")
    lacks += opened.lacks
    return PageContent(
        dataset=name,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=__version__,
        command=command or shlex.join(["tune", "report", *([name] if name else ["--all"])]),
        tasks=tuple(tasks),
        stores=tuple(stores),
        maps=tuple(maps),
        splits={
            label: {
                split: len(tracks)
                for split in ("train", "val", "test")
                if (tracks := dataset.split(split))
            }
            for label, dataset in datasets.items()
        },
        leaks=leaks,
        given=dict(given or {}),
        missing=tuple(dict.fromkeys(lacks)),
    )


def _attention(given: Attention | Path | str | None) -> Callable[[str, str, str], Attention]:
    """Weights by dataset, task and segment length: of a file its own, a mapping for all."""
    if given is None or isinstance(given, Mapping):
        return lambda dataset, task, seg: given or {}
    found = read_weights(Path(given))
    return lambda dataset, task, seg: found.get((dataset, task, seg), {})


def cells_of(runs: Sequence[SavedRun]) -> list[Runs]:
    """Put the seeds of each configuration together, in the order of their first runs."""
    cells: dict[str, list[SavedRun]] = {}
    for run in runs:
        result, where = run.result, run.context
        key = canonical_json(
            [
                where.encoder, where.spec_key, where.seg, where.pooling, result.aggregation,
                sorted((name, str(value)) for name, value in result.aggregation_options.items()),
                result.probe, result.layer_asked,
                result.layer if result.layer_asked == "all" else "",
                without_leaks(result),
            ]
        )  # fmt: skip
        cells.setdefault(key, []).append(run)
    return [tuple(sorted(some, key=lambda run: run.result.seed)) for some in cells.values()]


def task_results(context: Context, runs: Sequence[SavedRun], margin: float) -> TaskResults | None:
    """Compare the cells of one task with the one that validation chooses; None of few shots."""
    cells = cells_of([run for run in runs if run.result.shots is None])
    if not cells:
        return None
    entries = [
        Entry(
            results=tuple(run.result for run in some),
            segs=(some[0].context.seg,),
            aggregations=(some[0].result.aggregation,),
        )
        for some in cells
    ]
    place = choose_reference(entries)
    scores, comparisons, notes = _judged(context, cells, place)
    with_predictions = tuple(_loaded(context, run) for run in cells[place])
    cells[place] = with_predictions
    return TaskResults(
        dataset=runs[0].context.dataset,
        task=runs[0].result.task,
        verdicts=tuple(judge(entries, scores, comparisons, place, margin=margin)),
        runs=tuple(cells),
        few_shot=tuple(run for run in runs if run.result.shots is not None),
        margin=margin,
        notes=tuple(notes),
    )


def _loaded(context: Context, run: SavedRun) -> SavedRun:
    has = run.result.predictions or run.run_id == 0
    return run if has else load_run(context.layout.results_db, run.run_id)


def _judged(
    context: Context, cells: Sequence[Runs], reference: int
) -> tuple[list[Score], list[Comparison | None], list[str]]:
    """Score and compare every cell; those that cannot be compared are named with the reason."""
    paths = {"path": context.layout.results_db, "memory": context.layout.comparisons}
    entries = [(some, tuple(_key(run) for run in some)) for some in cells]
    try:
        scores, comparisons = zip(*judged(entries, reference, jobs=None, **paths), strict=True)
        return list(scores), list(comparisons), []
    except TuneCacheError:
        pass  # one of them; find out which
    found: list[tuple[Score, Comparison | None]] = []
    notes = []
    for place, entry in enumerate(entries):
        try:
            pair = [entry, entries[reference]] if place != reference else [entry]
            found.append(judged(pair, len(pair) - 1, jobs=1, **paths)[0])
        except TuneCacheError as error:
            some = [_loaded(context, run).result for run in entry[0]]
            found.append((score_of(some[:1]), None))
            notes.append(f"not compared: run {entry[0][0].run_id}: {error}")
    return [score for score, _ in found], [comparison for _, comparison in found], notes


def _key(run: SavedRun) -> str:
    """What a comparison depends on: the very run."""
    told = [run.run_id, run.created, run.context.content_digest, run.result.to_json()]
    return run.context.cell_key or sha256_text(canonical_json(told))
