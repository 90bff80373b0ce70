"""``tune report``: the newest result of each configuration, as rows and as a page."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cache.commands.context import Context, open_context, several
from tune_cache.commands.judged_cells import JudgedTask, judge_runs
from tune_cache.datasets.base import Dataset
from tune_cache.errors import StoreNotFoundError, TuneCacheError, UsageError
from tune_cache.probes.compare import MARGIN
from tune_cache.probes.verdicts import check_margin
from tune_cache.reports.results import SavedRun, newest_runs

__all__ = ["Report", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Results of one dataset, or of all.

    Parameters
    ----------
    dataset
        Its name; None for all.
    runs
        The newest of each configuration, without predictions.
    page
        The file with the page, where one was asked for.
    tasks
        The cells of these runs, compared with the one that validation chose, where
        that was asked for.
    figures
        Files that were drawn.
    notes
        What is not in them.
    """

    dataset: str | None
    runs: tuple[SavedRun, ...]
    page: Path | None = None
    tasks: tuple[JudgedTask, ...] = ()
    figures: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def report(
    dataset: str | Path | None = None,
    *,
    task: str | Sequence[str] = (),
    encoder: str | None = None,
    every: bool = False,
    html: Path | str | None = None,
    attention: Mapping[str, Sequence[float]] | Path | str | None = None,
    judge: bool = False,
    figures: Path | str | None = None,
    figure_format: str | Sequence[str] = (),
    figure_width: float | None = None,
    cache_dir: Path | str | None = None,
) -> Report:
    """Read the results of a dataset.

    Parameters
    ----------
    dataset
        As for the other verbs.
    task, encoder
        Only these.
    every
        Of all datasets in this cache.
    html
        Write a page to this file: self-contained, to be opened in a browser.
    attention
        Weights over the segments of tracks, by track id, or the file that
        :func:`~tune_cache.commands.probe.probe` wrote: shown on the page's map for tracks
        with as many segments in the store that it is drawn from.
    judge
        Compare the cells of each task, as tables for papers need it; takes as long as
        the comparisons of a sweep, once.
    figures
        Draw figures into this folder.
    figure_format
        ``svg``, ``pdf``, ``png``; svg if empty.
    figure_width
        Inches; 3.4, a column, if None.

    Raises
    ------
    StoreNotFoundError
        If there are none.
    UsageError
        If figures cannot be written, or not so.
    MissingExtraError
        If figures are asked for and matplotlib is not installed.
    """
    if figures is None and (several(figure_format) or figure_width is not None):
        raise UsageError(
            "--figure-format and --figure-width are given, and no folder for figures",
            hint="add --figures DIR",
        )
    context = open_context(cache_dir)
    loaded = None if every else context.dataset(dataset)
    name = None if loaded is None else loaded.name
    runs = newest_runs(context.layout.results_db, name)
    chosen = tuple(
        run
        for run in runs
        if (not task or run.result.task in several(task))
        and (encoder in (None, run.context.encoder))
    )
    if not chosen:
        raise StoreNotFoundError(
            f"no results of {'any dataset' if every else repr(name)}"
            + (f" for task {', '.join(several(task))}" if task else "")
            + (f" with encoder {encoder!r}" if encoder else ""),
            hint="`tune probe` makes them; `tune report --all` shows every dataset's",
        )
    tasks: list[JudgedTask] = []
    if judge or figures is not None:
        margin = float(context.setting("margin", None, MARGIN))
        check_margin(margin)
        tasks = judge_runs(context.layout, chosen, margin=margin)
    files: list[Path] = []
    notes: list[str] = []
    if figures is not None:
        from tune_cache.commands.figures import write_figures

        files, notes = write_figures(
            figures, tasks, forms=several(figure_format), width_inches=figure_width
        )
    page = None
    if html is not None:
        from tune_cache.commands.page import write_page

        datasets, missing = _datasets(context, loaded, chosen)
        asked = [] if dataset is None else [os.fspath(dataset)]
        flags = [f"--task={item}" for item in several(task)]
        flags += [f"--encoder={encoder}"] if encoder else []
        flags += ["--all"] if every else []
        page = write_page(
            html,
            context,
            chosen,
            datasets,
            name=name,
            given={name: asked[0]} if name is not None and asked else {},
            command=shlex.join(["tune", "report", *asked, *flags, "--html", os.fspath(html)]),
            attention=attention,
            missing=missing,
        )
    return Report(
        dataset=name,
        runs=chosen,
        page=page,
        tasks=tuple(tasks),
        figures=tuple(files),
        notes=tuple(notes),
    )


def _datasets(
    context: Context, loaded: Dataset | None, runs: Sequence[SavedRun]
) -> tuple[dict[str, Dataset], list[str]]:
    """Load the datasets of all results, and tell which could not be."""
    if loaded is not None:
        return {loaded.name: loaded}, []
    found, missing = {}, []
    for name in dict.fromkeys(run.context.dataset for run in runs):
        try:
            found[name] = context.dataset(name)
        except TuneCacheError as error:
            missing.append(f"{name}: labels of training tracks, splits and leaks: {error}")
    return found, missing
