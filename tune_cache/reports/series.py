"""Judged cells as the points, lines and bars of figures.

Conventions
-----------
Everything drawn is a test score with its 95 % interval, except curves over layers
where only validation was looked at; each series says which it is. Of cells that
differ in the layer alone, costs and differences show the one that validation
prefers. A cell without a figure (a cost, a score) is in no series that needs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_cache.probes.sweep import gives_one_back
from tune_cache.reports.front import Candidate

__all__ = [
    "COSTS",
    "Bar",
    "JudgedCell",
    "Line",
    "Point",
    "cost_points",
    "difference_bars",
    "front_points",
    "layer_lines",
    "length_lines",
    "seg_order",
]

COSTS = {
    "vram": "peak VRAM, GB",
    "rss": "peak RSS, GB",
    "seconds": "stage one, s per hour of audio",
    "disk": "vectors on disk, MB",
}
FEWEST_LAYERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCell:
    """A cell with its row of a sweep's table.

    Parameters
    ----------
    row
        As :func:`~tune_cache.reports.sweeps.sweep_rows` makes it.
    """

    cell: Candidate
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A score at a cost, a layer or a length; an interval of NaN is none."""

    x: float
    value: float
    low: float
    high: float
    seg: str = ""
    aggregation: str = ""
    is_chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points of one configuration, in order.

    Parameters
    ----------
    split
        Where the scores are from.
    """

    label: str
    split: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A paired difference to the cell that validation chose."""

    label: str
    difference: float
    low: float
    high: float
    as_good: bool | None


def seg_order(seg: str) -> tuple[float, str]:
    """Order lengths: seconds, joined lengths by their first, ``full`` last.

    Examples
    --------
    >>> sorted(["full", "30", "5", "10+30"], key=seg_order)
    ['5', '10+30', '30', 'full']
    """
    try:
        return float(seg.split("+")[0]), seg
    except ValueError:
        return math.inf, seg


def _cost(cell: Candidate, kind: str) -> float | None:
    costs = cell.costs
    if kind in ("vram", "rss"):
        has = costs.memory_kind == kind and costs.memory_bytes is not None
        return costs.memory_bytes / 1e9 if has and costs.memory_bytes is not None else None
    value = costs.seconds if kind == "seconds" else costs.disk_bytes
    return value / 1e6 if value is not None and kind == "disk" else value


def _preferred(cells: Sequence[JudgedCell]) -> list[JudgedCell]:
    """Of cells that differ in the layer alone, the one with the best validation score."""
    best: dict[tuple[str, ...], JudgedCell] = {}
    for item in cells:
        names = ("encoder", "seg", "aggregation", "aggregation_options", "probe")
        key = tuple(str(item.row[name]) for name in names)
        other = best.setdefault(key, item)
        if not other.row["is_reference"] and (
            item.row["is_reference"] or _or_least(item.row["val"]) > _or_least(other.row["val"])
        ):
            best[key] = item
    return list(best.values())


def cost_points(cells: Sequence[JudgedCell], kind: str) -> list[Point]:
    """Test scores at a cost, one of :data:`COSTS`; cells of unknown cost are left out."""
    points = []
    for item in _preferred(cells):
        cost, row = _cost(item.cell, kind), item.row
        if cost is not None and math.isfinite(row["test"]):
            points.append(_point(cost, row))
    return points


def _point(x: float, row: Mapping[str, Any]) -> Point:
    return Point(
        x=x,
        value=row["test"],
        low=row["test_low"],
        high=row["test_high"],
        seg=row["seg"],
        aggregation=row["aggregation"],
        is_chosen=row["is_reference"],
    )


def front_points(points: Sequence[Point]) -> list[Point]:
    """Points that none beats in what is drawn, by rising cost.

    Examples
    --------
    >>> some = [Point(x=x, value=v, low=0, high=1) for x, v in ((1, 0.5), (2, 0.4), (3, 0.9))]
    >>> [point.x for point in front_points(some)]
    [1, 3]
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.value)):
        if not front or point.value > front[-1].value:
            front.append(point)
    return front


def _label(row: Mapping[str, Any], *names: str) -> str:
    def word(name: str) -> str:
        text = str(row[name])
        if name == "layer":
            return f"layer {text}"
        if name == "aggregation":
            return " = ".join([text, *row["same_aggregation"]])
        return f"{text} s" if name == "seg" and text != "full" else text

    return ", ".join(map(word, names))


def _told_apart(cells: Sequence[JudgedCell], *names: str) -> tuple[str, ...]:
    """Those of the names whose values differ, so that labels say no more than they must."""
    found = tuple(name for name in names if len({str(item.row[name]) for item in cells}) > 1)
    return found or names[:1]


def layer_lines(cells: Sequence[JudgedCell]) -> list[Line]:
    """Scores by layer, the best line first.

    Of test where a configuration was probed at several named layers; else the best
    validation score of each layer that a probe looked at.
    """
    names = _told_apart(cells, "seg", "aggregation", "probe", "encoder")
    groups: dict[tuple[str, ...], list[JudgedCell]] = {}
    for item in cells:
        key = tuple(str(item.row[name]) for name in ("encoder", "seg", "aggregation", "probe"))
        groups.setdefault(key, []).append(item)
    lines = []
    for some in groups.values():
        at = {
            int(item.row["layer"]): _point(float(item.row["layer"]), item.row)
            for item in some
            if item.row["layer"].isdecimal()
            and item.row["layer_asked"] != "best"
            and math.isfinite(item.row["test"])
        }
        split, points = "test", [at[layer] for layer in sorted(at)]
        if len(points) < FEWEST_LAYERS:
            split, points = "validation", _validated(some)
        if len(points) >= FEWEST_LAYERS:
            label = _label(some[0].row, *names)
            lines.append(Line(label=label, split=split, points=tuple(points)))
    return sorted(lines, key=lambda line: (-max(point.value for point in line.points), line.label))


def _validated(cells: Sequence[JudgedCell]) -> list[Point]:
    """The curve of the cell that looked at most layers."""
    curves = [dict(item.cell.results[0].layer_curve) for item in cells if item.cell.results]
    curve = max(curves, key=len, default={})
    return [
        Point(x=float(layer), value=value, low=math.nan, high=math.nan)
        for layer, value in sorted(
            ((int(layer), value) for layer, value in curve.items() if layer.isdecimal())
        )
        if math.isfinite(value)
    ]


def length_lines(cells: Sequence[JudgedCell]) -> tuple[list[str], list[Line]]:
    """Test scores by segment length, one line an aggregation.

    Of several cells of one length and aggregation that which validation prefers. A
    cell that stands for other lengths or aggregations is drawn at each, so where no
    track has two segments the lines of mean, max, … meet.

    Returns
    -------
    the lengths, whose places are the x of points, and the lines, the best first
    """
    known = [item for item in cells if math.isfinite(item.row["test"])]
    segs = sorted(
        {seg for item in known for seg in (item.row["seg"], *item.row["same_seg"])}, key=seg_order
    )
    names = _told_apart(known, "aggregation", "encoder") if known else ("aggregation",)
    drawn = dict.fromkeys(
        a for i in known for a in (i.row["aggregation"], *i.row["same_aggregation"])
    )
    best: dict[str, dict[str, JudgedCell]] = {}
    for item in known:
        row = item.row
        for aggregation in _stands_for(row, list(drawn)):
            label = _label({**row, "aggregation": aggregation, "same_aggregation": ()}, *names)
            for seg in (row["seg"], *row["same_seg"]):
                other = best.setdefault(label, {}).get(seg)
                if other is None or _or_least(row["val"]) > _or_least(other.row["val"]):
                    best[label][seg] = item
    lines = [
        Line(
            label=label,
            split="test",
            points=tuple(
                _point(float(place), by_seg[seg].row)
                for place, seg in enumerate(segs)
                if seg in by_seg
            ),
        )
        for label, by_seg in best.items()
    ]
    return segs, sorted(lines, key=lambda line: (-max(p.value for p in line.points), line.label))


def _stands_for(row: Mapping[str, Any], drawn: Sequence[str]) -> list[str]:
    """Aggregations that a row is the result of, of those that are drawn."""
    same = [row["aggregation"], *row["same_aggregation"]]
    if row["share_one_segment"] == 1.0 and gives_one_back(row["aggregation"]):
        same += [name for name in drawn if gives_one_back(name) and name not in same]
    return same


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def difference_bars(cells: Sequence[JudgedCell]) -> list[Bar]:
    """Paired differences to the chosen cell on test, the largest first."""
    shown = _preferred(cells)
    compared = [item for item in shown if item.row["difference"] is not None]
    names = _told_apart(shown, "seg", "aggregation", "layer", "probe", "encoder")
    bars = [
        Bar(
            label=_label(item.row, *names),
            difference=item.row["difference"],
            low=item.row["difference_low"],
            high=item.row["difference_high"],
            as_good=item.row["as_good"],
        )
        for item in compared
        if math.isfinite(item.row["difference"])
    ]
    return sorted(bars, key=lambda bar: (-bar.difference, bar.label))
