"""Axes and marks in SVG, as escaped text.

Conventions
-----------
A drawing is ``WIDTH`` units wide and scales with its box. Colours, line widths and
fonts are classes of the style sheet, so that light, dark and print are its affair;
``k0`` to ``k7`` are the eight colours of the palette and ``kx`` is grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_cache.errors import printable

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = [
    "N_COLOURS", "WIDTH", "Frame", "Scale", "colour", "dots", "element", "nice_ticks", "number",
    "place", "scale_of", "short",
]  # fmt: skip

WIDTH = 480
N_COLOURS = 8
LONGEST_LABEL = 26


def element(name: str, *children: Any, **attributes: Any) -> Markup:
    """Write an element; names of attributes take ``_`` for ``-``, texts are escaped.

    Examples
    --------
    >>> str(element("text", "a<b", x=1.0, class_="t", data_id="'"))
    '<text x="1" class="t" data-id="&#39;">a&lt;b</text>'
    """
    from markupsafe import Markup, escape

    parts = [
        f' {key.strip("_").replace("_", "-")}="{escape(_value(v))}"'
        for key, v in attributes.items()
        if v is not None
    ]
    inside = "".join(
        str(escape(child if isinstance(child, Markup) else printable(child))) for child in children
    )
    return Markup(f"<{name}{''.join(parts)}>{inside}</{name}>")


def _value(value: Any) -> str:
    return place(value) if isinstance(value, float) else printable(value)


def place(value: float) -> str:
    """A coordinate, to a tenth of a unit.

    Examples
    --------
    >>> place(12.04), place(3.25), place(-0.001)
    ('12', '3.2', '0')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def colour(index: int | None) -> str:
    """Class of a colour; beyond the palette, grey."""
    return f"k{index}" if index is not None and index < N_COLOURS else "kx"


def short(text: str, longest: int = LONGEST_LABEL) -> str:
    """Cut a label that would leave the drawing; its whole text stands elsewhere."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def number(value: float) -> str:
    """A tick's text.

    Examples
    --------
    >>> [number(value) for value in (0.30000000000000004, 1200.0, 0.05, 2.0)]
    ['0.3', '1200', '0.05', '2']
    """
    return f"{value:.6g}"


def nice_ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round numbers inside a range, about ``n``.

    Examples
    --------
    >>> nice_ticks(0.0, 1.0), nice_ticks(0.42, 0.61)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.45, 0.5, 0.55, 0.6])
    """
    if not high > low:
        return [low]
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Scale:
    """A range of values on a range of units."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies; outside of the range it is drawn at its end."""
        low, high = self._of(self.low), self._of(self.high)
        share = (self._of(value) - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.is_log else value

    def ticks(self) -> list[float]:
        """Values to write at the axis."""
        if not self.is_log:
            return nice_ticks(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [m * 10.0**p for p in powers for m in (1, 2, 5)]
        found = [value for value in found if self.low <= value <= self.high]
        return found if len(found) <= 7 else [v for v in found if f"{v:e}".startswith("1.0")]


def scale_of(
    values: Iterable[float],
    start: float,
    stop: float,
    *,
    zero: bool = False,
    is_log: bool | None = False,
) -> Scale:
    """Choose a range for values, with air at both ends.

    Parameters
    ----------
    zero
        Whether the range begins at 0.
    is_log
        None: where the largest value is 30 times the smallest or more.
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if is_log is None:
        is_log = low > 0 and high / low >= 30
    if is_log:
        return Scale(low / 1.25, high * 1.25, start, stop, is_log=True)
    if zero:
        return Scale(0.0, high * 1.06 or 1.0, start, stop)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return Scale(low - air, high + air, start, stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Axes, grid and names of a drawing.

    Parameters
    ----------
    x, y
        Scales; ``x`` may be categories instead, with a place and a name each.
    """

    x: Scale | Sequence[tuple[float, str]]
    y: Scale
    x_name: str
    y_name: str
    height: float

    def draw(self, label: str, *marks: Any, class_: str = "") -> Markup:
        """Put marks on the axes.

        Parameters
        ----------
        label
            What a screen reader says of it.
        """
        left, right = (
            (self.x.start, self.x.stop) if isinstance(self.x, Scale) else (56.0, WIDTH - 14.0)
        )
        bottom = self.y.start
        parts = []
        for value in self.y.ticks():
            at = self.y(value)
            parts += [
                element("line", class_="grid", x1=left, x2=right, y1=at, y2=at),
                element("text", number(value), class_="tick", x=left - 7, y=at + 4.5,
                        text_anchor="end"),
            ]  # fmt: skip
        ticks = (
            [(self.x(value), number(value)) for value in self.x.ticks()]
            if isinstance(self.x, Scale)
            else self.x
        )
        for at, text in ticks:
            parts += [
                element("line", class_="axis", x1=at, x2=at, y1=bottom, y2=bottom + 4),
                element("text", text, class_="tick", x=at, y=bottom + 18, text_anchor="middle"),
            ]
        parts += [
            element("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom),
            element("text", self.x_name, class_="name", x=(left + right) / 2, y=self.height - 6,
                    text_anchor="middle"),
            element("text", self.y_name, class_="name", x=4.0, y=14.0),
        ]  # fmt: skip
        return element(
            "svg", *parts, *marks, class_=f"plot {class_}".strip(), role="img", aria_label=label,
            viewBox=f"0 0 {WIDTH} {place(self.height)}",
        )  # fmt: skip


def dots(points: Iterable[tuple[float, float]]) -> str:
    """Path of any number of dots: lines without length, which round caps make visible.

    Examples
    --------
    >>> dots([(1, 2), (3.5, 4)])
    'M1 2h0M3.5 4h0'
    """
    return "".join(f"M{place(x)} {place(y)}h0" for x, y in points)
