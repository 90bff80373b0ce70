"""Text for a terminal: tables of anything, folded sentences, curves of one line.

Conventions
-----------
Widths count columns of a terminal, of which some characters take two. Whatever
is given is data: control characters are replaced, markup is never interpreted.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tune_cache.errors import printable
from tune_cache.reports.cost import left_out

__all__ = ["Curve", "fitted_table", "folded", "layer_curves", "plain_table", "sparkline"]

NAMES_TO_COPY = ("store", "manifest")  # never broken over lines
BARS = "▁▂▃▄▅▆▇█"
DIGITS = "0123456789"
NAME_WIDTH = 8  # that a folded name still needs to be read
FEWEST_LAYERS = 3
MOST_CURVES = 12

# what a curve is of, and validation scores of layers by their names
Curve = tuple[str, Sequence[tuple[str, float]]]


def plain_table(
    rows: Sequence[Mapping[str, Any]], *, width: int = 80, firm: Sequence[str] = ()
) -> str:
    """Draw any list of things: columns as they come, empty ones left out, ``firm`` never folded."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    for name in names:
        numeric = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(
            Text(printable(name)),
            justify="right" if numeric or name in firm else "left",
            overflow="fold",
            no_wrap=name in (*NAMES_TO_COPY, *firm),
        )
    for row in rows:
        cells = ["" if row.get(name) is None else str(row[name]) for name in names]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def fitted_table(
    rows: Sequence[Mapping[str, str | int]],
    *,
    width: int,
    firm: Sequence[str],
    droppable: Sequence[str],
) -> tuple[str, list[str]]:
    """Draw a table without the columns that leave no room for names, and name these.

    Parameters
    ----------
    firm
        Columns that are never folded; others need :data:`NAME_WIDTH`.
    droppable
        Columns that may go, the first of them first.
    """
    from rich.cells import cell_len

    names = list(dict.fromkeys(name for row in rows for name in row))
    widest = {
        name: max(cell_len(text) for text in (name, *(str(row.get(name, "")) for row in rows)))
        for name in names
        if any(row.get(name) not in (None, "") for row in rows)
    }
    widths = {
        name: 2 + (wide if name in firm else min(wide, NAME_WIDTH)) for name, wide in widest.items()
    }
    absent = left_out(widths, width + 2, droppable=droppable)
    kept = [{name: row[name] for name in row if name not in absent} for row in rows]
    return plain_table(kept, width=width, firm=firm), absent


def folded(text: str, *, width: int = 80, indent: str = "  ") -> str:
    """Break a sentence over lines at spaces, and a word that is too wide anywhere.

    Spaces that it begins with stay; lines after the first begin with ``indent`` more.

    Examples
    --------
    >>> print(folded("warning: test has 8 groups: intervals are rough", width=24))
    warning: test has 8
      groups: intervals are
      rough
    """
    from rich.cells import cell_len, chop_cells

    text = printable(text)
    begin = text[: len(text) - len(text.lstrip(" "))]
    lines, line, is_empty = [], begin, True
    for word in text.split():
        room = max(width - cell_len(begin + indent), 1)
        for place, part in enumerate(chop_cells(word, room)):
            joined = line + part if is_empty else f"{line} {part}"
            if not place and (is_empty or cell_len(joined) <= width):
                line = joined
            else:
                lines.append(line)
                line = begin + indent + part
            is_empty = False
    return "\n".join([*lines, line])


def sparkline(values: Sequence[float], *, encoding: str = "utf-8") -> str:
    """Draw a curve in one line, lowest to highest; a dot where a value is undefined.

    Digits stand for bars where the encoding has none.

    Examples
    --------
    >>> sparkline([0.1, 0.5, float("nan"), 0.9])
    '▁▅·█'
    >>> sparkline([0.1, 0.5, float("nan"), 0.9], encoding="ascii")
    '05.9'
    """
    try:
        BARS.encode(encoding)
        marks, undefined = BARS, "·"
    except (UnicodeEncodeError, LookupError):
        marks, undefined = DIGITS, "."
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)

    def mark(value: float) -> str:
        if not math.isfinite(value):
            return undefined
        share = (value - low) / (high - low) if high > low else 0.5
        return marks[min(int(share * len(marks)), len(marks) - 1)]

    return "".join(map(mark, values))


def layer_curves(curves: Sequence[Curve], *, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """Draw validation scores over layers, a line each, under a heading; nothing of few layers.

    Each curve spans its own lowest to its own highest, which stand beside it. Equal
    ones of one name are one.
    """
    lines = []
    for name, curve in curves:
        layers = [(int(layer), value) for layer, value in curve if layer.isdecimal()]
        if len(layers) >= FEWEST_LAYERS:
            values = [value for _, value in sorted(layers)]
            known = [value for value in values if math.isfinite(value)] or [math.nan]
            drawn = sparkline(values, encoding=encoding)
            lines.append(f"  {drawn} {min(known):.3f} to {max(known):.3f} {name}")
    lines = list(dict.fromkeys(lines))
    if not lines:
        return []
    n_more = len(lines) - MOST_CURVES
    more = [f"  and {n_more} more (--json has all)"] if n_more > 0 else []
    head = "validation by layer, the first left, each from its lowest to its highest:"
    return [head, *lines[:MOST_CURVES], *more]
