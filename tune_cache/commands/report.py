"""``tune report``: the newest result of each configuration, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cache.commands.context import open_context, several
from tune_cache.errors import StoreNotFoundError
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
    """

    dataset: str | None
    runs: tuple[SavedRun, ...]


def report(
    dataset: str | Path | None = None,
    *,
    task: str | Sequence[str] = (),
    encoder: str | None = None,
    every: bool = False,
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

    Raises
    ------
    StoreNotFoundError
        If there are none.
    """
    context = open_context(cache_dir)
    name = None if every else context.dataset(dataset).name
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
    return Report(dataset=name, runs=chosen)
