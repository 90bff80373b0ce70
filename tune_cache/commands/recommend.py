"""``tune recommend``: which cell to use under which budget, from saved results."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cache.commands.context import Context, open_context, parse_bytes, several
from tune_cache.commands.judged_cells import store_sizes
from tune_cache.errors import StoreNotFoundError, UsageError, quoted
from tune_cache.probes.compare import MARGIN
from tune_cache.reports.advice import SHARE, Advice, advise
from tune_cache.reports.candidates import candidates_of, published_candidates
from tune_cache.reports.front import Budget, Candidate, front_of
from tune_cache.reports.published import LABELS, PUBLISHED, published_rows
from tune_cache.reports.results import SavedRun, load_run, newest_runs

__all__ = ["Recommendation", "recommend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Advice for each task of a dataset.

    Parameters
    ----------
    advice
        By task.
    published
        From the study's table, not from results of one's own.
    """

    dataset: str
    advice: Mapping[str, Advice]
    published: bool = False
    warnings: tuple[str, ...] = ()


def recommend(
    dataset: str | Path | None = None,
    *,
    task: str | Sequence[str] = (),
    encoder: str | None = None,
    max_memory: str | int | None = None,
    memory_kind: str | None = None,
    max_seconds_per_hour: float | None = None,
    max_bytes: str | int | None = None,
    rule: str = "margin",
    margin: float | None = None,
    share: float = SHARE,
    published: bool = False,
    cache_dir: Path | str | None = None,
) -> Recommendation:
    """Say which cell is the best, the cheapest and fastest as good as it, and the best in a budget.

    The newest result of each configuration counts; see
    :func:`~tune_cache.reports.advice.advise`. Choices are made on validation and
    told with test.

    Parameters
    ----------
    dataset, task, encoder
        As for :func:`~tune_cache.commands.report.report`.
    max_memory
        Peak of the encoding process or the GPU's tensors, weights included, as
        ``4GB``; of the kind that the results have.
    memory_kind
        ``vram`` or ``rss``, where results have both.
    max_seconds_per_hour
        Of stage one for an hour of audio, loading the encoder apart.
    max_bytes
        Of the store on disk.
    rule, margin, share
        What counts as good as the best: a paired loss shown to be below the margin
        (0.02 if None), or a share of the best score.
    published
        From the study's published table of EMO or GTZAN; then no result is needed.

    Raises
    ------
    StoreNotFoundError
        If there are no results.
    UsageError
        If a limit or rule cannot be followed.
    """
    context = open_context(cache_dir)
    budget = Budget(
        memory_bytes=parse_bytes(max_memory),
        memory_kind=memory_kind or "",
        seconds=max_seconds_per_hour,
        disk_bytes=parse_bytes(max_bytes, what="room on disk"),
    )
    chosen = context.setting("margin", margin, MARGIN)
    rules = _Rules(rule=rule, margin=float(chosen), share=share)
    if published:
        return _published(dataset, several(task), budget, rules)
    name = context.dataset(dataset).name
    saved = newest_runs(context.layout.results_db, name)
    mine = [run for run in saved if encoder in (None, run.context.encoder)]
    tasks = dict.fromkeys(run.result.task for run in mine)
    wanted = several(task) or tuple(tasks)
    absent = [item for item in wanted if item not in tasks]
    if absent or not mine:
        there = [f"task {item!r}" for item in tasks]
        there = there or [f"encoder {item!r}" for item in {run.context.encoder for run in saved}]
        raise StoreNotFoundError(
            f"no results of {name!r}"
            + (f" for task {absent[0]!r}" if absent else "")
            + (f" with encoder {encoder!r}" if encoder else "")
            + (f"; there are those of {', '.join(sorted(there))}" if there else ""),
            hint=f"`tune sweep {quoted(name if dataset is None else dataset)}` makes them; "
            "`tune report` shows those there are",
        )
    runs = [run for run in mine if run.result.task in wanted]
    sizes = store_sizes(context.layout, runs)
    return Recommendation(
        dataset=name,
        advice={
            item: _advice(
                [run for run in runs if run.result.task == item], sizes, budget, rules, context
            )
            for item in wanted
        },
        warnings=tuple(_left_out(runs)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    rule: str
    margin: float
    share: float

    def advise(self, cells: Sequence[Candidate], budget: Budget) -> Advice:
        return advise(cells, budget=budget, rule=self.rule, margin=self.margin, share=self.share)


def _advice(
    runs: Sequence[SavedRun],
    sizes: Mapping[str, float],
    budget: Budget,
    rules: _Rules,
    context: Context,
) -> Advice:
    """Advise on one task; predictions are read of the cells that may be chosen only."""
    cells = candidates_of(runs, sizes)
    contenders = {cell.name for cell in front_of(cells)}
    path = context.layout.results_db

    def with_predictions(cell: Candidate) -> Candidate:
        numbers = cell.about["run_ids"]
        return dataclasses.replace(
            cell, results=tuple(load_run(path, number).result for number in numbers)
        )

    read = [with_predictions(cell) if cell.name in contenders else cell for cell in cells]
    return rules.advise(read, budget)


def _left_out(runs: Sequence[SavedRun]) -> Iterator[str]:
    n_few = sum(run.result.shots is not None for run in runs)
    if n_few:
        yield f"{n_few} few-shot results are left out: they are another question"
    notes = {(run.context.encoder, run.context.note) for run in runs if run.context.note}
    yield from (f"encoder {encoder}: {note}" for encoder, note in sorted(notes))


def _published(
    dataset: str | Path | None, tasks: Sequence[str], budget: Budget, rules: _Rules
) -> Recommendation:
    name = str(dataset or (tasks[0] if tasks else "")).rsplit("/", 1)[-1]
    rows = published_rows(name)
    if not rows:
        known = ", ".join(dict.fromkeys(row.dataset for row in PUBLISHED))
        raise UsageError(
            f"there is no published table of dataset {name!r}, expected one of {known}",
            hint="as `tune recommend EMO --published --rule share`",
        )
    if budget.seconds is not None:
        raise UsageError(
            "seconds of the published table are of a whole dataset, not of an hour of audio",
            hint="leave out --max-seconds-per-hour, or --published",
        )
    return Recommendation(
        dataset=name,
        advice={name: rules.advise(published_candidates(rows), budget)},
        published=True,
        warnings=LABELS,
    )
