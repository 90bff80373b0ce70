"""Results as rows, and rows as text, Markdown, CSV and JSON.

Conventions
-----------
A row is a dictionary of plain values, the same for every format; best test
score first within a dataset and task. Names come from manifests, so they are
data: control characters are replaced everywhere, markup is never interpreted,
and a CSV cell that a spreadsheet would run is quoted with an apostrophe (OWASP,
"CSV Injection").
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tune_cache.errors import printable
from tune_cache.probes.result import without_nan
from tune_cache.reports.cost import (
    COST_COLUMNS,
    STAGE_TWO_COST,
    cost_cells,
    cost_notes,
    cost_of,
    left_out,
    probe_seconds,
)
from tune_cache.reports.csv_cells import csv_text
from tune_cache.reports.results import SavedRun
from tune_cache.reports.text import NAME_WIDTH, Curve, folded, layer_curves

__all__ = [
    "csv_table",
    "json_table",
    "rows_of",
    "text_table",
    "with_options",
]

Row = Mapping[str, Any]

JSON_SCHEMA = 1
SAID_ONCE = ("encoder", "probe", "n", "seed")  # if the same in all rows
FOLDED = ("encoder", "seg", "agg", "probe", "layer", "flags")
# what may go where a table is too wide, the first first; other metrics before these
DROPPABLE = (*COST_COLUMNS[::-1], "probe s")
LAST_DROPPABLE = ("seed", "n", "val")


def rows_of(runs: Iterable[SavedRun]) -> list[dict[str, Any]]:
    """Flatten runs to rows, the best test score first within a dataset and task."""
    rows = []
    for run in runs:
        result, context = run.result, run.context
        row: dict[str, Any] = {
            "run_id": run.run_id,
            "created": run.created,
            "dataset": context.dataset,
            "task": result.task,
            "encoder": context.encoder,
            "note": context.note,
            "seg": context.seg,
            "pooling": context.pooling,
            "aggregation": result.aggregation,
            "aggregation_options": dict(result.aggregation_options),
            "probe": result.probe,
            "params": dict(result.params),
            "layer": result.layer,
            "layer_asked": result.layer_asked,
            "seed": result.seed,
            "metric": result.metric,
        }
        for split in ("test", "val"):
            for name, score in result.scores[split].items():
                row[f"{split}_{name}"] = score.value
                row[f"{split}_{name}_low"] = score.low
                row[f"{split}_{name}_high"] = score.high
        row |= {f"n_{split}": count for split, count in result.n.items()}
        row |= {
            "n_classes": result.n_classes,
            "n_features": result.n_features,
            "share_one_segment": result.share_one_segment,
        }
        row["layer_curve"] = [[layer, score] for layer, score in result.layer_curve]
        row |= {f"seconds_{name}": value for name, value in result.seconds.items()}
        row |= {name: result.cost.get(name) for name in STAGE_TWO_COST}
        row |= {
            "n_excluded": len(result.excluded),
            "flags": list(result.flags),
            "warnings": list(result.warnings),
            "store": context.store,
            "spec_key": context.spec_key,
            "content_digest": context.content_digest,
            **cost_of(context.cost),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: (row["dataset"], row["task"], *_worst_last(row)))


def _worst_last(row: Row) -> tuple[bool, float]:
    value = row[f"test_{row['metric']}"]
    return math.isnan(value), -value


@dataclass(frozen=True, slots=True)
class _Block:
    """One task's table, every cell a text."""

    title: str
    said: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    others: tuple[str, ...] = ()  # metrics beside the one that choices were made by
    curves: tuple[Curve, ...] = ()


def _blocks(rows: Sequence[Row]) -> list[_Block]:
    """Split by dataset and task; what is the same in all rows is said in the title."""
    blocks = []
    for (dataset, task), group in groupby(rows, key=lambda row: (row["dataset"], row["task"])):
        some = list(group)
        metric = some[0]["metric"]
        flags = list(dict.fromkeys(flag for row in some for flag in row["flags"]))
        marks = {flag: str(number) for number, flag in enumerate(flags, start=1)}
        columns = {
            "encoder": [str(row["encoder"]) for row in some],
            "seg": [row["seg"] for row in some],
            "agg": [with_options(r["aggregation"], r["aggregation_options"]) for r in some],
            "probe": [row["probe"] for row in some],
            "layer": [_layer(row) for row in some],
            metric: [_interval(row, f"test_{metric}") for row in some],
        }
        others = _other_metrics(some, metric)
        for name in others:
            columns[name] = [_number(row.get(f"test_{name}")) for row in some]
        columns |= {
            "val": [_number(row.get(f"val_{metric}")) for row in some],
            "n": [str(row["n_test"]) for row in some],
            "seed": [str(row["seed"]) for row in some],
            **cost_cells(some),
            "probe s": probe_seconds(some),
            "flags": [",".join(marks[flag] for flag in row["flags"]) for row in some],
        }
        same = [name for name in SAID_ONCE if len(set(columns[name])) == 1]
        remarks = dict.fromkeys((row["encoder"], row["note"]) for row in some if row["note"])
        said = [f"{name} {columns.pop(name)[0]}" for name in same]
        if not flags:
            del columns["flags"]
        warnings = dict.fromkeys(warning for row in some for warning in row["warnings"])
        blocks.append(
            _Block(
                title=f"{dataset} · {task}: {metric} on test [95 % interval]",
                said="; ".join(said),
                header=tuple(columns),
                cells=tuple(zip(*columns.values(), strict=True)),
                notes=(
                    *(f"encoder {encoder}: {note}" for encoder, note in remarks),
                    *(f"flag {mark}: {flag}" for flag, mark in marks.items()),
                    *cost_notes(some),
                    *(f"warning: {warning}" for warning in warnings),
                ),
                others=tuple(others),
                curves=tuple(_curve(row, columns) for row in some),
            )
        )
    return blocks


def with_options(aggregation: str, options: Mapping[str, Any]) -> str:
    """An aggregation and its options, if it has any, as ``max(derive=30)``."""
    told = ", ".join(f"{name}={value}" for name, value in options.items())
    return f"{aggregation}({told})" if told else aggregation


def _layer(row: Row) -> str:
    """The layer used, and how it was found if it was looked for."""
    found = row["layer_asked"] in ("best", "last")
    return f"{row['layer']} ({row['layer_asked']})" if found else str(row["layer"])


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _interval(row: Row, name: str) -> str:
    low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
    value = _number(row.get(name))
    return value if math.isnan(low) else f"{value} [{low:.2f}, {high:.2f}]"


def _other_metrics(rows: Sequence[Row], metric: str) -> list[str]:
    names = dict.fromkeys(
        name.removeprefix("test_").removesuffix("_low")
        for row in rows
        for name in row
        if name.startswith("test_") and name.endswith("_low")
    )
    return [name for name in names if name != metric]


def _fitting(block: _Block, width: int) -> _Block:
    """Leave out columns where they take the room of names, and say so."""
    from rich.cells import cell_len

    widths = {}
    for name, *cells in zip(block.header, *block.cells, strict=True):
        widest = max(map(cell_len, (name, *cells)))
        widths[name] = 2 + (min(widest, NAME_WIDTH) if name in FOLDED else widest)
    droppable = (*DROPPABLE, *block.others[::-1], *LAST_DROPPABLE)
    absent = left_out(widths, width + 2, droppable=droppable)
    if not absent:
        return block
    about = tuple(f"{name}:" for name in absent)
    places = [place for place, name in enumerate(block.header) if name not in absent]
    return dataclasses.replace(
        block,
        header=tuple(block.header[place] for place in places),
        cells=tuple(tuple(row[place] for place in places) for row in block.cells),
        notes=(
            *(note for note in block.notes if not note.startswith(about)),
            f"too narrow for: {', '.join(absent)}",
        ),
    )


def _curve(row: Row, columns: Mapping[str, Any]) -> Curve:
    """Scores over layers, and what tells the row from others."""
    names = {
        "encoder": row["encoder"],
        "seg": f"seg {row['seg']}",
        "agg": with_options(row["aggregation"], row["aggregation_options"]),
    }
    names |= {"probe": row["probe"], "seed": f"seed {row['seed']}"}
    told = [str(text) for name, text in names.items() if name in columns]
    return ", ".join(told), row["layer_curve"]


def text_table(
    rows: Sequence[Row], *, width: int = 80, colour: bool = False, encoding: str = "utf-8"
) -> str:
    """Draw a table a task for a terminal of ``width`` columns.

    Names that are too wide are folded; numbers never are. Columns of cost, then
    other metrics, are left out and named below where they would leave no room for
    names. Below stand scores over layers, where a probe looked at several.

    Parameters
    ----------
    encoding
        Of the terminal: whether it has the characters for these curves.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
        highlight=False,
    )
    for number, block in enumerate(_fitting(block, width) for block in _blocks(rows)):
        if number:
            console.print()
        for line in filter(None, (block.title, block.said)):
            console.print(Text(printable(line)))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in block.header:
            table.add_column(
                Text(printable(name)),
                justify="left" if name in FOLDED else "right",
                no_wrap=name not in FOLDED,
                overflow="fold",
            )
        for cells in block.cells:
            table.add_row(*(Text(printable(cell)) for cell in cells))
        console.print(table)
        curves = layer_curves(block.curves, width=width, encoding=encoding)
        for note in (*block.notes, *curves):
            console.print(Text(folded(note, width=width)))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def csv_table(rows: Sequence[Row]) -> str:
    """Write all rows and columns; texts are quoted, undefined numbers are empty."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow([_csv_cell(name) for name in header])
    for row in rows:
        writer.writerow([_csv_cell(row.get(name)) for name in header])
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    """A number as it is, anything else as a text that no spreadsheet runs."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "; ".join(value)
    elif isinstance(value, Mapping | list):
        value = json.dumps(without_nan(value), ensure_ascii=False) if value else ""
    return csv_text(value)


def json_table(
    rows: Sequence[Row], *, command: str, dataset: str | None, warnings: Sequence[str] = ()
) -> str:
    """Write the one object that ``--json`` prints; undefined numbers are null."""
    value = {
        "schema": JSON_SCHEMA,
        "command": command,
        "dataset": dataset,
        "rows": without_nan(list(rows)),
        "warnings": list(warnings),
    }
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)
