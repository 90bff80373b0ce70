"""What sweeps and comparisons found, as text for people and as one JSON object for programs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from tune_cache.commands.compare import CompareReport
from tune_cache.commands.show import amount, encoding, warn, width
from tune_cache.commands.show_probe import trainings
from tune_cache.commands.sweep import SweepReport, SweepTable
from tune_cache.commands.sweep_stores import Grid
from tune_cache.commands.terminal import say
from tune_cache.errors import printable
from tune_cache.reports.comparisons import compare_row, compare_text
from tune_cache.reports.sweeps import sweep_rows, sweep_text
from tune_cache.reports.tables import json_table
from tune_cache.reports.text import Curve

__all__ = ["CellProgress", "compare_report", "missing", "sweep_report"]

LINE_EVERY_SECONDS = 15.0


def missing(grids: Sequence[Grid]) -> None:
    """List the stores that are missing, and what they would cost."""
    say(f"missing stores: {len(grids)}")
    for grid in grids:
        text = (
            f"  seg {' = '.join(grid.labels)}: {grid.n_segments} segments,"
            f" {grid.audio_seconds / 3600:.2f} h of audio"
        )
        if grid.ahead is not None:
            text += f", {amount(grid.ahead.n_bytes)}"
            if grid.ahead.work.n_copied + grid.ahead.work.n_done:
                text += f", {grid.ahead.work.n_encode} tracks left to encode"
        if math.isfinite(grid.encode_seconds):
            text += f", about {grid.encode_seconds:.0f} s at the speed of a store at hand"
        say(text)


class CellProgress:
    """Tells now and then how many cells are done."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, n_done: int, n_cells: int) -> None:
        """Tell of one more cell."""
        now = time.monotonic()
        if now - self._told >= LINE_EVERY_SECONDS:
            self._told = now
            say(f"cells: {n_done} of {n_cells}")


def sweep_report(report: SweepReport, *, as_json: bool) -> str:
    """A table a task; cells without a result are listed on stderr."""
    tables = [
        sweep_rows(table.verdicts, table.runs, margin=table.margin) for table in report.tables
    ]
    failed = [f"{cell}: {why}" for cell, why in report.failed]
    if as_json:
        rows = [row for table in tables for row in table]
        warnings = [*report.warnings, *failed]
        return json_table(rows, command="sweep", dataset=report.dataset.name, warnings=warnings)
    warn(report.warnings)
    for line in trainings(row[0] for table in report.tables for row in table.runs):
        say(line)  # of the first seed
    for line in failed:
        say(f"no result: {printable(line)}")
    n_new = report.n_cells - report.n_remembered - len(failed)
    say(f"{report.n_cells} cells: {report.n_remembered} known, {n_new} worked out")
    return "\n\n".join(
        sweep_text(rows, width=width(), curves=_curves(table), encoding=encoding())
        for rows, table in zip(tables, report.tables, strict=True)
    )


def _curves(table: SweepTable) -> list[Curve]:
    """Scores over layers of the rows that looked for the best, the best row first."""
    looked = [item for item in table.verdicts if item.entry.results[0].layer_asked == "best"]
    looked.sort(key=lambda item: -item.entry.validation())
    curves: list[Curve] = []
    for item in looked:
        entry, first = item.entry, item.entry.results[0]
        name = f"seg {' = '.join(entry.segs)}, {' = '.join(entry.aggregations)}, {first.probe}"
        curves.append((name, first.layer_curve))
    return curves


def compare_report(report: CompareReport, *, as_json: bool, n_tracks: int) -> str:
    """What the two differ by, and on which tracks."""
    rows = [
        compare_row(
            pair.first,
            pair.second,
            pair.comparisons[place],
            pair.p_holm[place],
            pair.tracks[:n_tracks] if place == 0 else (),
            sides=report.sides,
            margin=report.margin,
        )
        for pair in report.pairs
        for place in range(len(pair.comparisons))
    ]
    if as_json:
        return json_table(rows, command="compare", dataset=report.dataset, warnings=[])
    return compare_text(rows, width=width())
