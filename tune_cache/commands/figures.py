"""``tune report --figures``: results judged, drawn, written to a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tune_cache.cache.disk import write_durably
from tune_cache.commands.judged_cells import JudgedTask
from tune_cache.errors import UsageError
from tune_cache.reports.figures.drawn import COLUMN_INCHES, check_figures, draw_figures

__all__ = ["write_figures"]


def write_figures(
    folder: Path | str,
    tasks: Sequence[JudgedTask],
    *,
    forms: Sequence[str] = (),
    width_inches: float | None = None,
) -> tuple[list[Path], list[str]]:
    """Draw the figures of each task into a folder; files of the same name are replaced.

    Parameters
    ----------
    forms, width_inches
        As :func:`~tune_cache.reports.figures.drawn.draw_figures` takes them; svg and a
        column if empty.

    Returns
    -------
    the files, and what was left out of them

    Raises
    ------
    UsageError
        If the folder cannot be written, or a format or the width cannot be used.
    MissingExtraError
        If matplotlib is not installed.
    """
    chosen = tuple(dict.fromkeys(forms)) or ("svg",)
    width = COLUMN_INCHES if width_inches is None else width_inches
    check_figures(chosen, width)
    folder = Path(folder)
    written: list[Path] = []
    notes: list[str] = []
    for task, prefix in zip(tasks, _prefixes(tasks), strict=True):
        title = task.dataset if task.dataset == task.task else f"{task.dataset} · {task.task}"
        notes += [f"{title}: {note}" for note in task.notes]
        for drawn in draw_figures(task.cells, title=title, forms=chosen, width_inches=width):
            path = folder / f"{prefix}-{drawn.name}.{drawn.form}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_durably(path, drawn.data)
            except OSError as error:
                raise UsageError(
                    f"figure {str(path)!r} cannot be written: {error.strerror or error}",
                    hint="give --figures a folder that you may write to",
                ) from error
            written.append(path)
            notes += [f"{path.name}: {drawn.note}"] if drawn.note else []
    return written, notes


def _prefixes(tasks: Sequence[JudgedTask]) -> list[str]:
    """Names of files that any system takes, one a task; names that would be one get a number."""
    taken: dict[str, int] = {}
    names = []
    for task in tasks:
        parts = [task.dataset] if task.dataset == task.task else [task.dataset, task.task]
        name = "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.") or "x" for part in parts)
        name = name[:80]
        taken[name.lower()] = count = taken.get(name.lower(), 0) + 1
        names.append(name if count == 1 else f"{name}-{count}")
    return names
