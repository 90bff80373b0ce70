"""Tables of a page: which columns, in which words, and by what they sort.

Conventions
-----------
A cell of a table is its text and the number it sorts by, None for a text. Columns that
no row has a figure for are left out; what is the same in all rows is said once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING

from tune_cache.errors import printable
from tune_cache.reports.page.costs import difference_bar
from tune_cache.reports.page.rows import (
    COSTS,
    Row,
    aggregation_name,
    encoder_name,
    layer_name,
    seg_name,
    seg_order,
)
from tune_cache.reports.page.svg import scale_of
from tune_cache.reports.page.words import figure, metric_name
from tune_cache.reports.published import LABELS, published_rows
from tune_cache.reports.sweeps import interval, number, p_value

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = [
    "Column", "Differences", "Table", "cell_table", "differences", "flag_code", "published_table",
]  # fmt: skip

MOST_DIFFERENCES = 40
SAID_ONCE = ("encoder", "probe", "layer", "seeds", "n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its heading, what that means, and texts with what they sort by."""

    name: str
    tells: str = ""
    is_number: bool = False
    cells: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of equal length; the first names its rows.

    Parameters
    ----------
    said
        What is the same in every row.
    notes
        Flags and what the columns mean.
    """

    columns: tuple[Column, ...]
    said: str = ""
    notes: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Rows below the heading."""
        return len(self.columns[0].cells)


def flag_code(flag: str) -> str:
    """The name of a flag, without what it says.

    Examples
    --------
    >>> flag_code("one-segment: 65% of tracks")
    'one-segment'
    """
    return flag.partition(":")[0]


def cell_table(rows: Sequence[Row]) -> Table:
    """The table in TUNE's form, and what it needs beside: aggregation, length, cost, scores."""
    metric = metric_name(rows[0]["metric"])
    others = list(dict.fromkeys(name for row in rows for name in row["others"]))
    n_seeds = {len(row["seeds"]) for row in rows}

    def texts(name: str, of: Callable[[Row], str], tells: str = "") -> Column:
        return Column(name=name, tells=tells, cells=tuple((of(row), None) for row in rows))

    def figures(
        name: str,
        of: Callable[[Row], float | None],
        text: Callable[[Row], str] | None = None,
        tells: str = "",
    ) -> Column:
        cells = []
        for row in rows:
            value = of(row)
            known = value is not None and math.isfinite(value)
            cells.append((text(row) if text else figure(value), value if known else None))
        return Column(name=name, tells=tells, is_number=True, cells=tuple(cells))

    costs = {c.key: figures(c.column, c.of, tells=c.tells) for c in COSTS}
    seconds = figures(
        "stage one, s",
        lambda row: row["stage_one_seconds"],
        tells="loading, waiting for decoders, encoding and writing this store",
    )
    first = [
        texts("aggregation", aggregation_name),
        Column(
            name="segments",
            cells=tuple(
                (seg_name(row), (o := seg_order(row["seg"]))[0] * 1e9 + o[1]) for row in rows
            ),
        ),
        texts("encoder", encoder_name),
        texts("probe", lambda row: str(row["probe"])),
        Column(
            name="layer",
            tells="used (how it was asked for)",
            cells=tuple(
                (layer_name(row), float(row["layer"]) if row["layer"].isdigit() else None)
                for row in rows
            ),
        ),
    ]
    scores = [
        figures(
            f"{metric}, test",
            lambda row: row["test"],
            lambda row: interval(row["test"], row["test_low"], row["test_high"]),
            "95 % interval over groups",
        )
    ]
    scores += [
        figures(
            f"{metric_name(name)}, test",
            partial(_other, name=name),
            partial(_other_text, name=name),
        )
        for name in others
    ]
    judged = [
        figures("validation", lambda row: row["val"], lambda row: number(row["val"]),
                f"{metric}; of a chosen cell it is the best of many"),
        figures(
            "to the chosen",
            lambda row: 0.0 if row["is_reference"] else row["difference"],
            _to_the_chosen,
            "paired difference on common test tracks, 95 % interval",
        ),
        figures("p", lambda row: row["p_holm"], lambda row: p_value(row["p_holm"]),
                "Holm-corrected over this table"),
        texts("as good", _as_good, f"loses less than {rows[0]['margin']:g}, with 95 % confidence"),
        figures("n", lambda row: float(row["n_test"]), lambda row: str(row["n_test"]),
                "test tracks"),
        texts("seeds", _seeds, "± standard deviation of the test score over them"
              if n_seeds != {1} else ""),
        texts("flags", lambda row: ", ".join(map(flag_code, row["flags"]))),
    ]  # fmt: skip
    columns = [
        *first,
        *(costs[key] for key in ("vram", "rss")),
        seconds,
        costs["hour"],
        *scores,
        *judged[:4],
        *(costs[key] for key in ("disk", "probe")),
        *judged[4:],
    ]
    return _tidy(columns, rows)


def _tidy(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """Leave out empty columns, say what is the same once, explain flags."""
    kept, said = [], []
    for column in columns:
        names = {text for text, _ in column.cells}
        if names <= {"–", ""}:
            continue
        if column.name in SAID_ONCE and len(names) == 1:
            said.append(f"{column.name} {names.pop()}")
            continue
        kept.append(column)
    flags = dict.fromkeys(flag for row in rows for flag in row["flags"])
    warnings = dict.fromkeys(warning for row in rows for warning in row["warnings"])
    notes = [*flags, *(f"warning: {text}" for text in warnings)]
    return Table(columns=tuple(kept), said="; ".join(said), notes=tuple(map(printable, notes)))


def _other(row: Row, name: str) -> float | None:
    value: float | None = row["others"].get(name)
    return value


def _other_text(row: Row, name: str) -> str:
    value = _other(row, name)
    low, high = row["other_spans"].get(name, (math.nan, math.nan))
    return "–" if value is None else interval(value, low, high)


def _to_the_chosen(row: Row) -> str:
    if row["is_reference"]:
        return "chosen"
    if row["difference"] is None:
        return "–"
    return interval(row["difference"], row["difference_low"], row["difference_high"], sign="+")


def _as_good(row: Row) -> str:
    if row["is_reference"]:
        return "chosen"
    return {True: "yes", False: "not shown", None: "cannot tell"}[row["as_good"]]


def _seeds(row: Row) -> str:
    deviation = row["seed_deviation"]
    if len(row["seeds"]) == 1:
        return str(row["seeds"][0])
    return f"{len(row['seeds'])} ± {deviation:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Paired differences to the reference, best first.

    Parameters
    ----------
    rows
        Each cell's row, and its difference drawn on the common axis.
    low, high
        Ends of that axis.
    n_left_out
        Cells beyond the best by validation; the large table has all.
    """

    rows: tuple[tuple[Row, Markup], ...]
    low: float
    high: float
    margin: float
    n_left_out: int = 0


def differences(rows: Sequence[Row]) -> Differences | None:
    """Draw the differences of the cells that validation likes best; None without any."""
    compared = [row for row in rows if row["difference"] is not None]
    if not compared:
        return None
    liked = sorted(compared, key=lambda row: _worst_last(row["val"]))[:MOST_DIFFERENCES]
    shown = sorted(liked, key=lambda row: _worst_last(row["difference"]))
    margin = rows[0]["margin"]
    spans = [row[key] for row in shown
             for key in ("difference", "difference_low", "difference_high")]  # fmt: skip
    scale = scale_of([-margin, margin, *(v for v in spans if v is not None)], 4.0, 236.0)
    return Differences(
        rows=tuple((row, difference_bar(row, scale, margin)) for row in shown),
        low=scale.low,
        high=scale.high,
        margin=margin,
        n_left_out=len(compared) - len(shown),
    )


def _worst_last(value: float) -> tuple[bool, float]:
    return math.isnan(value), -value


def published_table(dataset: str, rows: Sequence[Row]) -> Table | None:
    """The study's rows of this dataset, with the scores that the same cells have here."""
    published = published_rows(dataset)
    if not published:
        return None
    names = list(dict.fromkeys(name for row in published for name in row.scores))

    def here(row_seg: str, aggregation: str, name: str) -> tuple[str, float | None]:
        wanted = "mean" if aggregation == "full track" else aggregation
        values = [
            row["test"] if row["metric"] == name else row["others"].get(name)
            for row in rows
            if row_seg in (row["seg"], *row["same_seg"])
            and wanted in (row["aggregation"], *row["same_aggregation"])
        ]
        known = [v for v in values if v is not None and math.isfinite(v)]
        if not known:
            return "–", None
        low, high = min(known), max(known)
        text = number(low) if low == high else f"{number(low)} to {number(high)}"
        return text, mean(known)

    columns = [
        Column(name="aggregation", cells=tuple((row.aggregation, None) for row in published)),
        Column(
            name="segments",
            cells=tuple(
                ("full" if row.seg == "full" else f"{row.seg} s", seg_order(row.seg)[1] or 1e9)
                for row in published
            ),
        ),
        Column(
            name="published VRAM, GB",
            is_number=True,
            cells=tuple((f"{row.vram_gb:.3f}", row.vram_gb) for row in published),
        ),
        Column(
            name="published time, s",
            is_number=True,
            cells=tuple((f"{row.seconds:.3f}", row.seconds) for row in published),
        ),
    ]
    for name in names:
        columns.append(
            Column(
                name=f"{metric_name(name)}, published",
                is_number=True,
                cells=tuple(
                    (number(row.scores.get(name)), row.scores.get(name)) for row in published
                ),
            )
        )
        columns.append(
            Column(
                name=f"{metric_name(name)}, here",
                is_number=True,
                cells=tuple(here(row.seg, row.aggregation, name) for row in published),
            )
        )
    columns.append(
        Column(
            name="flags",
            cells=tuple((", ".join(map(flag_code, row.flags)), None) for row in published),
        )
    )
    flags = dict.fromkeys(flag for row in published for flag in row.flags)
    return Table(columns=tuple(columns), said="; ".join(LABELS), notes=tuple(flags))
