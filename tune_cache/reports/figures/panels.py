"""What stands inside a figure: each function returns what draws onto given axes.

Conventions
-----------
What draws returns what it left out, in words, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tune_cache.reports.figures.style import COLOURS, DASHES, MARKERS, shortened
from tune_cache.reports.series import Bar, Line, Point, front_points, seg_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST_BARS", "Draw", "costs", "differences", "layers", "lengths"]

Draw = Callable[["Axes"], str]

GREY = "#767676"
MOST_LINES = 7
MOST_BARS = 24
MOST_ENTRIES = 14
DODGE, WIDEST_DODGE = 3.0, 36.0  # typographic points


def _metric(name: str) -> str:
    """A metric as papers write it.

    Examples
    --------
    >>> _metric("r2_arousal"), _metric("accuracy")
    ('R² arousal', 'accuracy')
    """
    return shortened(f"R²{name[2:]}".replace("_", " ") if name.startswith("r2") else name)


def _errors(points: Sequence[Point]) -> list[list[float]]:
    """Lengths of the bars below and above, 0 where there is no interval."""

    def length(value: float) -> float:
        return max(value, 0.0) if math.isfinite(value) else 0.0

    return [
        [length(point.value - point.low) for point in points],
        [length(point.high - point.value) for point in points],
    ]


def costs(points: Sequence[Point], axis: str, metric: str) -> Draw:
    segs = sorted({point.seg for point in points}, key=seg_order)
    aggregations = list(dict.fromkeys(point.aggregation for point in points))

    def draw(axes: Axes) -> str:
        most, least = max(p.x for p in points), min(p.x for p in points)
        if most > 10 * least > 0:
            axes.set_xscale("log")
            axes.set_xlim(least / 1.5, most * 1.5)
        else:
            axes.set_xlim(0, 1.12 * most or 1.0)
            axes.locator_params(axis="x", nbins=5)
        front = front_points(points)
        axes.step(
            [*(point.x for point in front), axes.get_xlim()[1]],
            [*(point.value for point in front), front[-1].value],
            where="post",
            color=GREY,
            linewidth=0.9,
            linestyle="--",
            zorder=1,
        )
        for point, points_aside in _dodged(points):
            moved = axes.transData + _aside(axes, points_aside)
            axes.errorbar(
                [point.x],
                [point.value],
                yerr=_errors([point]),
                color=COLOURS[segs.index(point.seg) % len(COLOURS)],
                marker=MARKERS[aggregations.index(point.aggregation) % len(MARKERS)],
                markeredgecolor="white",
                markeredgewidth=0.4,
                linestyle="none",
                elinewidth=0.6,
                transform=moved,
            )
            if point.is_chosen:
                axes.plot(
                    point.x,
                    point.value,
                    marker="o",
                    markersize=9,
                    markerfacecolor="none",
                    markeredgecolor="black",
                    markeredgewidth=0.9,
                    transform=moved,
                )
        axes.set_xlabel(axis)
        axes.set_ylabel(f"{_metric(metric)} on test")
        _fit_heights(axes, points)
        _cost_legend(axes, segs, aggregations)
        return ""

    return draw


def _aside(axes: Axes, points_aside: float) -> Any:
    """A shift to the right by so many typographic points."""
    from matplotlib.transforms import ScaledTranslation

    return ScaledTranslation(points_aside / 72, 0, axes.figure.dpi_scale_trans)


def _fit_heights(axes: Axes, points: Sequence[Point]) -> None:
    """Make room for all intervals: what is drawn moved aside does not count by itself."""
    bounds = [x for p in points for x in (p.value, p.low, p.high) if math.isfinite(x)]
    room = 0.05 * (max(bounds) - min(bounds)) or 0.05
    axes.set_ylim(min(bounds) - room, max(bounds) + room)


def _dodged(points: Sequence[Point]) -> list[tuple[Point, float]]:
    """Points of one cost beside each other, with the distance from where they are."""
    by_x: dict[float, list[Point]] = {}
    for point in points:
        by_x.setdefault(point.x, []).append(point)
    moved = []
    for some in by_x.values():
        step = min(DODGE, WIDEST_DODGE / max(len(some) - 1, 1))
        some.sort(key=lambda point: (seg_order(point.seg), point.aggregation))
        moved += [(p, step * (place - (len(some) - 1) / 2)) for place, p in enumerate(some)]
    return moved


def _cost_legend(axes: Axes, segs: Sequence[str], aggregations: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, **look: Any) -> Line2D:
        return Line2D([], [], linestyle=look.pop("linestyle", "none"), label=label, **look)

    entries = [
        entry(f"seg {shortened(seg)}", marker="s", color=COLOURS[place % len(COLOURS)])
        for place, seg in enumerate(segs)
    ]
    entries += [
        entry(shortened(name), marker=MARKERS[place % len(MARKERS)], color=GREY)
        for place, name in enumerate(aggregations)
    ]
    entries = entries[:MOST_ENTRIES]
    entries += [
        entry("front", color=GREY, linestyle="--"),
        entry(
            "chosen on validation", marker="o", markersize=7, color="black", markerfacecolor="none"
        ),
    ]
    _below(axes, entries)


def _below(axes: Axes, entries: Sequence[Any]) -> None:
    """A legend under the axes, where it hides nothing."""
    if entries:
        longest = max(len(str(entry.get_label())) for entry in entries)
        n_columns = 3 if longest <= 20 else 2 if longest <= 28 else 1
        axes.figure.legend(
            handles=list(entries), loc="outside lower left", ncols=n_columns, handlelength=1.6,
            columnspacing=1.0, handletextpad=0.4, labelspacing=0.25, borderaxespad=0.2,
        )  # fmt: skip


def layers(lines: Sequence[Line], metric: str) -> Draw:
    def draw(axes: Axes) -> str:
        shown = _draw_lines(axes, lines)
        splits = sorted({line.split for line in shown})
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{_metric(metric)} on {' or '.join(splits)}")
        axes.locator_params(axis="x", integer=True)
        return _left_out(lines, shown)

    return draw


def lengths(segs: Sequence[str], lines: Sequence[Line], metric: str) -> Draw:
    def draw(axes: Axes) -> str:
        shown = _draw_lines(axes, lines, dodge=0.06)
        axes.set_xticks(range(len(segs)), [shortened(seg, 12) for seg in segs])
        axes.set_xlim(-0.4, len(segs) - 0.6)
        axes.set_xlabel("segment length, s")
        axes.set_ylabel(f"{_metric(metric)} on test")
        return _left_out(lines, shown)

    return draw


def _draw_lines(axes: Axes, lines: Sequence[Line], *, dodge: float = 0.0) -> Sequence[Line]:
    """Draw the best lines with bands, or with bars beside each other, and a legend."""
    shown = lines[:MOST_LINES]
    handles = []
    for place, line in enumerate(shown):
        look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)]}
        shift = dodge * (place - (len(shown) - 1) / 2)
        x = [point.x + shift for point in line.points]
        values = [point.value for point in line.points]
        style = {"marker": MARKERS[place], "linestyle": DASHES[place % len(DASHES)], **look}
        if dodge:
            axes.errorbar(x, values, yerr=_errors(line.points), elinewidth=0.7, **style)
        else:
            axes.plot(x, values, **style)
            low, high = ([getattr(p, side) for p in line.points] for side in ("low", "high"))
            if place == 0 and all(map(math.isfinite, low + high)):
                axes.fill_between(x, low, high, alpha=0.15, linewidth=0, **look)
        from matplotlib.lines import Line2D

        handles.append(Line2D([], [], label=shortened(line.label), **style))
    _below(axes, handles)
    return shown


def _left_out(lines: Sequence[Line], shown: Sequence[Line]) -> str:
    n = len(lines) - len(shown)
    return f"{n} lines with lower scores are left out" if n else ""


def differences(bars: Sequence[Bar], metric: str, margin: float) -> Draw:
    def draw(axes: Axes) -> str:
        shown = bars[:MOST_BARS]
        axes.axvspan(-margin, margin, color="#eeeeee", linewidth=0, zorder=0)
        axes.axvline(0, color="black", linewidth=0.7, zorder=1)
        for place, bar in enumerate(shown):
            colour = COLOURS[2] if bar.as_good else COLOURS[0]
            width = [[bar.difference - bar.low], [bar.high - bar.difference]]
            has_interval = all(math.isfinite(side) for (side,) in width)
            axes.errorbar(
                [bar.difference],
                [-place],
                xerr=[[max(side[0], 0.0)] for side in width] if has_interval else None,
                color=colour,
                marker="D" if bar.as_good else "o",
                linestyle="none",
                elinewidth=0.8,
            )
        axes.set_yticks(
            [-place for place in range(len(shown))], [shortened(bar.label) for bar in shown]
        )
        axes.set_ylim(-len(shown) + 0.4, 0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(
            f"{_metric(metric)} on test, minus the chosen cell\nshaded: ± {margin:g}; ◆: as good",
            loc="right",
        )
        axes.locator_params(axis="x", nbins=5)
        n = len(bars) - len(shown)
        return f"{n} cells with lower differences are left out" if n else ""

    return draw
