"""The figures of one task as files.

Conventions
-----------
A figure that would show nothing is not drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tune_cache.errors import UsageError
from tune_cache.reports.figures.panels import (
    MOST_BARS,
    Draw,
    costs,
    differences,
    layers,
    lengths,
)
from tune_cache.reports.figures.style import figure_of, saved, shortened, styled
from tune_cache.reports.series import (
    COSTS,
    JudgedCell,
    cost_points,
    difference_bars,
    layer_lines,
    length_lines,
)

__all__ = ["COLUMN_INCHES", "FORMATS", "Drawn", "check_figures", "draw_figures"]

FORMATS = ("svg", "pdf", "png")
COLUMN_INCHES = 3.4
NARROWEST, WIDEST = 2.0, 12.0
LONGEST_TITLE = 54


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A figure as a file's bytes.

    Parameters
    ----------
    name
        What it shows, as ``cost-seconds``; with a format it names a file.
    note
        What it leaves out; empty if nothing.
    """

    name: str
    form: str
    data: bytes
    note: str = ""


def check_figures(forms: Sequence[str], width_inches: float) -> None:
    """Refuse what cannot be drawn.

    Raises
    ------
    UsageError
        If a format or the width cannot be used.
    """
    unknown = [form for form in forms if form not in FORMATS]
    if unknown:
        raise UsageError(
            f"figure format is {unknown[0]!r}, expected one of {', '.join(FORMATS)}",
            hint="svg for the web, pdf for LaTeX, png for slides",
        )
    if not NARROWEST <= width_inches <= WIDEST:
        raise UsageError(
            f"figures {width_inches:g} in wide, expected {NARROWEST:g} to {WIDEST:g}",
            hint="a column is 3.4, a page about 7 inches",
        )


def draw_figures(
    cells: Sequence[JudgedCell],
    *,
    title: str,
    forms: Sequence[str] = ("svg",),
    width_inches: float = COLUMN_INCHES,
) -> Iterator[Drawn]:
    """Draw what the cells of one task support: costs, layers, lengths, paired differences.

    Parameters
    ----------
    forms
        Of :data:`FORMATS`.
    width_inches
        Of every figure; heights follow.

    Raises
    ------
    UsageError
        If a format or the width cannot be used.
    MissingExtraError
        If matplotlib is not installed.
    """
    check_figures(forms, width_inches)
    metric = str(cells[0].row["metric"]) if cells else ""
    for name, draw, height in _plans(cells, metric):
        with styled():
            figure = figure_of(width_inches, height)
            axes = figure.subplots()
            axes.set_title(shortened(title, LONGEST_TITLE), loc="left")
            note = draw(axes)
            for form in forms:
                yield Drawn(name=name, form=form, data=saved(figure, form), note=note)


def _plans(cells: Sequence[JudgedCell], metric: str) -> Iterator[tuple[str, Draw, float]]:
    """Figures that have something to show: name, what draws it, height over width."""
    for kind, axis in COSTS.items():
        points = cost_points(cells, kind)
        if len(points) > 1:
            yield f"cost-{kind}", costs(points, axis, metric), 1.0
    lines = layer_lines(cells)
    if lines:
        yield "layers", layers(lines, metric), 0.85
    segs, by_length = length_lines(cells)
    if len(segs) > 1:
        yield "lengths", lengths(segs, by_length, metric), 0.85
    bars = difference_bars(cells)
    if bars:
        rows = min(len(bars), MOST_BARS)
        margin = float(cells[0].row["margin"])
        yield "differences", differences(bars, metric, margin), 0.3 + 0.05 * rows
