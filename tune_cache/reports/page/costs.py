"""Drawings of scores against cost, and of differences to the reference.

Conventions
-----------
A mark that stands for a cell carries ``data-cell``, its number in the table: what
hovering shows is looked up there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tune_cache.reports.page.marks import LEFT, RIGHT, TOP, Keys
from tune_cache.reports.page.rows import COSTS, Cost, Row, pareto_front
from tune_cache.reports.page.svg import Frame, Scale, element, place, scale_of
from tune_cache.reports.page.words import metric_name

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["CostChart", "cost_charts", "difference_bar"]

HEIGHT = 330.0
NEAR, APART, SPREAD = 6.0, 9.0, 40.0
MANY = 80  # bars of more cells would hide their marks


@dataclass(frozen=True, slots=True, kw_only=True)
class CostChart:
    """Score against one cost.

    Parameters
    ----------
    front
        Numbers of the cells on the Pareto front, the cheapest first.
    n_without
        Cells that lack the cost or the score.
    """

    cost: Cost
    svg: Markup
    front: tuple[int, ...]
    n_without: int


def cost_charts(rows: Sequence[Row], keys: Keys) -> list[CostChart]:
    """Draw the score against every cost that some cell has."""
    charts = []
    for cost in COSTS:
        known = [
            (value, row)
            for row in rows
            if (value := cost.of(row)) is not None and math.isfinite(row["test"])
        ]
        if known:
            charts.append(_cost_chart(cost, known, len(rows) - len(known), keys))
    return charts


def _cost_chart(
    cost: Cost, known: Sequence[tuple[float, Row]], n_without: int, keys: Keys
) -> CostChart:
    values = [value for value, _ in known]
    x = scale_of(values, LEFT, RIGHT, is_log=None, zero=True)
    spans = [
        bound for _, row in known for bound in (row["test"], row["test_low"], row["test_high"])
    ]
    y = scale_of(spans, HEIGHT - 44, TOP)
    places = pareto_front(values, [row["test"] for _, row in known])
    front = [known[p] for p in places]
    marks = []
    if len(front) > 1:
        steps = [f"M{place(x(front[0][0]))} {place(y(front[0][1]['test']))}"]
        steps += [f"H{place(x(value))}V{place(y(row['test']))}" for value, row in front[1:]]
        steps.append(f"H{place(RIGHT)}")
        marks.append(element("path", d="".join(steps), class_="front"))
    on_front = {row["number"] for _, row in front}
    beside = _side_by_side([x(value) for value in values])
    for shift, (value, row) in zip(beside, known, strict=True):
        at = x(value) + shift, y(row["test"])
        bar = None
        if math.isfinite(row["test_low"]):
            bar = element(
                "path", class_="bar",
                d=f"M{place(at[0])} {place(y(row['test_low']))}V{place(y(row['test_high']))}",
            )  # fmt: skip
        mark = keys.mark(row, *at, data_cell=row["number"])
        classes = "cell" + (" on-front" if row["number"] in on_front else "")
        classes += " chosen" if row["is_reference"] else ""
        ring = (
            element("circle", cx=at[0], cy=at[1], r=9, class_="ring")
            if row["is_reference"]
            else None
        )
        marks.append(element("g", *(p for p in (bar, ring, mark) if p is not None), class_=classes))
    metric = metric_name(known[0][1]["metric"])
    label = (
        f"{metric} on test against {cost.name}: {len(known)} cells, {len(front)} of them on the "
        "Pareto front. The table of cells has the same figures."
    )
    frame = Frame(x=x, y=y, x_name=cost.name, y_name=f"{metric} on test", height=HEIGHT)
    return CostChart(
        cost=cost,
        svg=frame.draw(label, *marks, class_="cost many" if len(known) > MANY else "cost"),
        front=tuple(row["number"] for _, row in front),
        n_without=n_without,
    )


def _side_by_side(places: Sequence[float]) -> list[float]:
    """Shift marks of nearly one cost apart, in the order they come; at most ``SPREAD`` units.

    Examples
    --------
    >>> _side_by_side([100.0, 300.0, 100.5])
    [-4.5, 0.0, 4.5]
    """
    shifts = [0.0] * len(places)
    order = sorted(range(len(places)), key=lambda number: (places[number], number))
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order) and places[order[end]] - places[order[start]] < NEAR:
            continue
        some = sorted(order[start:end])
        step = min(APART, SPREAD / max(len(some) - 1, 1))
        for rank, number in enumerate(some):
            shifts[number] = step * (rank - (len(some) - 1) / 2)
        start = end
    return shifts


def difference_bar(row: Row, scale: Scale, margin: float) -> Markup:
    """A difference with its interval, on a line through all rows of a table."""
    height = 26.0
    parts = [
        element("rect", class_="margin", x=scale(-margin), y=0, height=height,
                width=scale(margin) - scale(-margin)),
        element("line", class_="zero", x1=scale(0.0), x2=scale(0.0), y1=0, y2=height),
    ]  # fmt: skip
    value, low, high = row["difference"], row["difference_low"], row["difference_high"]
    if value is not None and math.isfinite(value):
        if low is not None and math.isfinite(low):
            bar = f"M{place(scale(low))} 13H{place(scale(high))}"
            parts.append(element("path", class_="bar", d=bar))
        parts.append(element("circle", class_="mark k0", cx=scale(value), cy=13.0, r=4.5))
    return element(
        "svg", *parts, viewBox=f"0 0 240 {place(height)}", class_="inline", aria_hidden="true"
    )
