"""Curves of scores: by segment length, and by layer.

Conventions
-----------
Where a pair was tried with several layers or probes, validation chooses what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tune_cache.reports.page.marks import LEFT, RIGHT, SHAPES, TOP, marker
from tune_cache.reports.page.rows import Row, encoder_name, seg_name, seg_order
from tune_cache.reports.page.svg import N_COLOURS, Frame, colour, element, place, scale_of
from tune_cache.reports.page.words import metric_name

if TYPE_CHECKING:
    from markupsafe import Markup

    from tune_cache.reports.page.model import TaskResults

__all__ = [
    "Curve", "LineChart", "Point", "layer_curves", "length_curves", "line_chart", "places_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a curve; ``low`` and ``high`` are NaN without a band."""

    x: str
    y: float
    low: float = math.nan
    high: float = math.nan
    cell: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line of a drawing."""

    name: str
    number: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Curves over common places.

    Parameters
    ----------
    n_left_out
        Curves beyond what colours can tell apart.
    """

    title: str
    x_name: str
    y_name: str
    curves: tuple[Curve, ...]
    n_left_out: int = 0


def line_chart(chart: LineChart, beside: Sequence[LineChart] = ()) -> Markup:
    """Draw curves, each with its band.

    Parameters
    ----------
    beside
        Charts of the same score: all get the same range.
    """
    known = [
        value
        for one in (chart, *(other for other in beside if other.y_name == chart.y_name))
        for curve in one.curves
        for p in curve.points
        for value in (p.y, p.low, p.high)
    ]
    height = 260.0
    places = places_of(chart)
    y = scale_of(known, height - 44, TOP)
    step = (RIGHT - LEFT) / max(len(places), 1)
    at = {name: LEFT + step * (number + 0.5) for number, name in enumerate(places)}
    every = max(1, math.ceil(len(places) / 13))
    marks = []
    for curve in chart.curves:
        defined = [p for p in curve.points if math.isfinite(p.y)]
        band = [p for p in defined if math.isfinite(p.low) and math.isfinite(p.high)]
        if len(band) > 1:
            upper = [f"{place(at[p.x])} {place(y(p.high))}" for p in band]
            lower = [f"{place(at[p.x])} {place(y(p.low))}" for p in reversed(band)]
            path = "M" + "L".join([*upper, *lower]) + "z"
            marks.append(element("path", d=path, class_=f"band {colour(curve.number)}"))
        elif band:
            (p,) = band
            path = f"M{place(at[p.x])} {place(y(p.low))}V{place(y(p.high))}"
            marks.append(element("path", d=path, class_=f"bar {colour(curve.number)}"))
    for curve in chart.curves:
        defined = [p for p in curve.points if math.isfinite(p.y)]
        line = "L".join(f"{place(at[p.x])} {place(y(p.y))}" for p in defined)
        classes = f"line {colour(curve.number)} dash{curve.number % 4}"
        if len(defined) > 1:
            marks.append(element("path", d=f"M{line}", class_=classes))
        marks += [
            marker(
                SHAPES[curve.number % 4], at[p.x], y(p.y), size=3.5, data_cell=p.cell,
                class_=f"mark {colour(curve.number)}",
            )
            for p in defined
        ]  # fmt: skip
    frame = Frame(
        x=[(at[name], name) for name in places[::every]], y=y, x_name=chart.x_name,
        y_name=chart.y_name, height=height,
    )  # fmt: skip
    names = ", ".join(curve.name for curve in chart.curves)
    return frame.draw(f"{chart.title}: {chart.y_name} by {chart.x_name}, for {names}", *marks)


def length_curves(rows: Sequence[Row]) -> list[LineChart]:
    """Score by segment length, a chart an encoder and a line an aggregation.

    Where a pair was tried with several layers or probes, validation chooses.
    """
    charts = []
    metric = metric_name(rows[0]["metric"])
    for encoder in dict.fromkeys(encoder_name(row) for row in rows):
        chosen: dict[str, dict[str, Row]] = {}
        for row in (r for r in rows if encoder_name(r) == encoder):
            for name in (row["aggregation"], *row["same_aggregation"]):
                for seg in (row["seg"], *row["same_seg"]):
                    by_seg = chosen.setdefault(str(name), {})
                    if seg not in by_seg or _above(row["val"], by_seg[seg]["val"]):
                        by_seg[seg] = row
        curves = [
            Curve(
                name=name,
                number=0,
                points=tuple(
                    Point(seg, row["test"], row["test_low"], row["test_high"], row["number"])
                    for seg, row in sorted(by_seg.items(), key=lambda item: seg_order(item[0]))
                ),
            )
            for name, by_seg in chosen.items()
        ]
        if any(len(curve.points) > 1 for curve in curves):
            charts.append(_limited(encoder, "segment length, s", f"{metric} on test", curves))
    return charts


def _above(value: float, other: float) -> bool:
    return math.isfinite(value) and not value <= other


def _limited(title: str, x_name: str, metric: str, curves: Sequence[Curve]) -> LineChart:
    """Join curves that are one line, number them; those beyond the palette are counted."""
    names: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for curve in curves:
        names.setdefault(tuple((p.x, p.y) for p in curve.points), []).append(curve.name)
    firsts = {some[0]: " = ".join(some) for some in names.values()}
    curves = [curve for curve in curves if curve.name in firsts]
    kept = [
        Curve(name=firsts[curve.name], number=number, points=curve.points)
        for number, curve in enumerate(curves[:N_COLOURS])
    ]
    return LineChart(
        title=title,
        x_name=x_name,
        y_name=metric,
        curves=tuple(kept),
        n_left_out=len(curves) - len(kept),
    )


def layer_curves(found: TaskResults, rows: Sequence[Row]) -> list[LineChart]:
    """Scores by layer, a chart an encoder and length: test where layers are cells, and validation.

    The band of a test score is its 95 % interval; that of a validation score, which a
    single seed does not have, is the range over seeds.
    """
    metric = metric_name(rows[0]["metric"])
    one_probe = len({row["probe"] for row in rows}) == 1
    tests: dict[tuple[str, str], dict[str, list[Point]]] = {}
    looks: dict[tuple[str, str], dict[str, list[Point]]] = {}
    for row, verdict in zip(rows, found.verdicts, strict=True):
        where = encoder_name(row), seg_name(row)
        name = str(row["aggregation"]) + ("" if one_probe else f", {row['probe']}")
        if row["layer_asked"] not in ("best", "last", "mean"):
            point = Point(
                row["layer"], row["test"], row["test_low"], row["test_high"], row["number"]
            )
            tests.setdefault(where, {}).setdefault(name, []).append(point)
        by_layer: dict[str, list[float]] = {}
        for result in verdict.entry.results:
            for layer, value in result.layer_curve:
                by_layer.setdefault(layer, []).append(value)
        if len(by_layer) > 1:
            several = any(len(values) > 1 for values in by_layer.values())
            points = [
                Point(
                    layer,
                    sum(values) / len(values),
                    min(values) if several else math.nan,
                    max(values) if several else math.nan,
                )
                for layer, values in by_layer.items()
            ]
            looks.setdefault(where, {}).setdefault(name, points)
    charts = []
    for kind, groups in (("test", tests), ("validation", looks)):
        for (encoder, seg), lines in groups.items():
            curves = [
                Curve(name=name, number=0, points=tuple(sorted(points, key=_layer_order)))
                for name, points in lines.items()
            ]
            if any(len(curve.points) > 1 for curve in curves):
                title = f"{encoder}, {seg}: {kind}"
                charts.append(_limited(title, "layer", f"{metric} on {kind}", curves))
    return charts


def _layer_order(point: Point) -> tuple[int, str]:
    return (int(point.x), "") if point.x.lstrip("-").isdigit() else (10**6, point.x)


def places_of(chart: LineChart) -> list[str]:
    """Where the curves of a chart have points, in order."""
    names = {point.x for curve in chart.curves for point in curve.points}
    if chart.x_name == "layer":
        return sorted(names, key=lambda name: _layer_order(Point(name, 0.0)))
    return sorted(names, key=seg_order)
