"""What ``tune report`` found, as text, tables for papers, CSV and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_cache.commands.report import Report
from tune_cache.commands.show import colour, encoding, warn, width
from tune_cache.commands.terminal import say
from tune_cache.errors import printable
from tune_cache.reports.paper import (
    half_interval,
    latex_tables,
    markdown_tables,
    paper_table,
)
from tune_cache.reports.tables import csv_table, json_table, rows_of, text_table

__all__ = ["report_tables", "written"]

JUDGED = ("is_reference", "as_good", "difference", "difference_low", "difference_high", "margin")


def report_tables(report: Report, *, form: str) -> str:
    """Results in one of the five forms."""
    if form == "text":
        rows = rows_of(report.runs)
        return text_table(rows, width=width(), colour=colour(), encoding=encoding())
    if form in ("latex", "markdown"):
        tables = []
        for task in report.tasks:
            few = [
                run
                for run in report.runs
                if run.result.shots is not None
                and (run.context.dataset, run.result.task) == (task.dataset, task.task)
            ]
            tables.append(paper_table(task.cells, few, notes=task.notes if task.cells else ()))
        return latex_tables(tables) if form == "latex" else markdown_tables(tables)
    rows = _rows(report)
    if form == "csv":
        return csv_table(rows).rstrip("\n")
    notes = [note for task in report.tasks for note in task.notes]
    return json_table(rows, command="report", dataset=report.dataset, warnings=notes)


def _rows(report: Report) -> list[dict[str, Any]]:
    """Rows of all runs, each with the verdict on its cell; None where there is none."""
    verdicts: dict[int, Mapping[str, Any]] = {}
    for task in report.tasks:
        for item in task.cells:
            for number in (*item.cell.about["run_ids"], *item.cell.about["same_run_ids"]):
                verdicts[number] = item.row
    rows = []
    for row in rows_of(report.runs):
        metric, verdict = row["metric"], verdicts.get(row["run_id"], {})
        half = half_interval(row[f"test_{metric}_low"], row[f"test_{metric}_high"])
        judged = {name: verdict.get(name) for name in JUDGED}
        rows.append({**row, "test_half_interval": half, **judged})
    return rows


def written(report: Report) -> None:
    """Say which page and figures were written, and what is not in these."""
    warn(report.notes)
    for path in report.figures:
        say(f"figure: {printable(str(path))}")
    if report.page is not None:
        say(f"page: {printable(str(report.page))}")
