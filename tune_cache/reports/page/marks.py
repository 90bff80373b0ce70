"""Marks of cells: what colour, what shape, and the key that says so.

Conventions
-----------
Colour is the aggregation and shape the length, so that neither is told by colour
alone; a second encoder's marks are hollow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_cache.reports.page.rows import Row, encoder_name, seg_order
from tune_cache.reports.page.svg import WIDTH, colour, element, place

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["LEFT", "RIGHT", "SHAPES", "TOP", "Keys", "marker"]

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "plus")
LEFT, RIGHT, TOP = 56.0, WIDTH - 14.0, 28.0


def marker(shape: str, x: float, y: float, *, size: float = 5.0, **attributes: Any) -> Markup:
    """A mark of one of :data:`SHAPES`."""
    s = size
    if shape == "circle":
        return element("circle", cx=x, cy=y, r=s, **attributes)
    paths = {
        "square": f"M{place(x - s)} {place(y - s)}h{2 * s}v{2 * s}h{-2 * s}z",
        "triangle": f"M{place(x)} {place(y - 1.3 * s)}l{1.2 * s:g} {2.2 * s:g}h{-2.4 * s:g}z",
        "diamond": f"M{place(x)} {place(y - 1.4 * s)}l{1.4 * s:g} {1.4 * s:g}"
        f"l{-1.4 * s:g} {1.4 * s:g}l{-1.4 * s:g} {-1.4 * s:g}z",
        "cross": f"M{place(x - s)} {place(y - s)}l{2 * s} {2 * s}m{-2 * s} 0l{2 * s} {-2 * s}",
        "plus": f"M{place(x - 1.2 * s)} {place(y)}h{2.4 * s:g}"
        f"m{-1.2 * s:g} {-1.2 * s:g}v{2.4 * s:g}",
    }
    return element("path", d=paths[shape], **attributes)


@dataclass(frozen=True, slots=True)
class Keys:
    """Which colour and shape stands for what: the same in all drawings of a task."""

    colours: Mapping[str, int]
    shapes: Mapping[str, str]
    hollow: frozenset[str]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Keys:
        """Number aggregations, lengths and encoders as they come."""
        names = list(dict.fromkeys(str(row["aggregation"]) for row in rows))
        lengths = sorted({str(row["seg"]) for row in rows}, key=seg_order)
        encoders = list(dict.fromkeys(encoder_name(row) for row in rows))
        return cls(
            colours={name: number for number, name in enumerate(names)},
            shapes={
                seg: SHAPES[min(number, len(SHAPES) - 1)] for number, seg in enumerate(lengths)
            },
            hollow=frozenset(encoders[1:]),
        )

    def mark(self, row: Row, x: float, y: float, **attributes: Any) -> Markup:
        """The mark of a cell."""
        number = self.colours[str(row["aggregation"])]
        fill = " hollow" if encoder_name(row) in self.hollow else ""
        return marker(
            self.shapes[str(row["seg"])], x, y, class_=f"mark {colour(number)}{fill}", **attributes
        )

    def legend(self) -> list[tuple[Markup, str]]:
        """Marks and what they mean, for a list below a drawing."""

        def sample(shape: str, class_: str) -> Markup:
            drawn = marker(shape, 8.0, 8.0, class_=f"mark {class_}")
            return element("svg", drawn, viewBox="0 0 16 16", class_="key", aria_hidden="true")

        found = [(sample("circle", colour(n)), name) for name, n in self.colours.items()]
        if len(self.shapes) > 1:
            found += [
                (sample(shape, "kx"), f"{seg} s" if seg_order(seg)[0] == 0 else seg)
                for seg, shape in self.shapes.items()
            ]
        found += [(sample("circle", "kx hollow"), name) for name in sorted(self.hollow)]
        return found
