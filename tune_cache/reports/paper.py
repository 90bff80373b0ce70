"""Tables for papers: LaTeX and Markdown, with ± and what is as good in bold.

Conventions
-----------
One row a cell, each thing once, seeds together; best test score first. ± is half
the 95 % interval, which need not be symmetric. Bold are the cell that validation
chose and those shown to lose less than the margin against it. Names are data:
nothing in them is read as markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from tune_cache.errors import printable
from tune_cache.probes.compare import FEW_GROUPS
from tune_cache.reports.cost import cost_cells, cost_notes
from tune_cache.reports.results import SavedRun
from tune_cache.reports.series import JudgedCell
from tune_cache.reports.sweeps import number
from tune_cache.reports.tables import rows_of, with_options

__all__ = ["PaperTable", "half_interval", "latex_tables", "markdown_tables", "paper_table"]

SAID_ONCE = ("encoder", "probe", "layer", "n", "seed")
NAMES = ("encoder", "seg", "agg", "probe", "layer", "flags")
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|&$~#!])")
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "[": "{[}", "]": "{]}", "*": "{*}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "±": r"$\pm$", "≡": r"$\equiv$", "×": r"$\times$", "·": r"$\cdot$", "–": "--", "²": "$^2$",
    "−": "$-$", "≥": r"$\ge$", "≤": r"$\le$",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """One task's table, every cell a text.

    Parameters
    ----------
    score
        Name of the column that may be bold.
    bold
        One a row.
    """

    title: str
    said: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    score: str
    bold: tuple[bool, ...]
    notes: tuple[str, ...]


def half_interval(low: float, high: float) -> float:
    """Half the width of an interval; NaN of none.

    Examples
    --------
    >>> half_interval(0.25, 0.75)
    0.25
    """
    return (high - low) / 2


def paper_table(
    cells: Sequence[JudgedCell],
    few_shot: Iterable[SavedRun] = (),
    *,
    notes: Iterable[str] = (),
) -> PaperTable:
    """Make the table of one task.

    Parameters
    ----------
    few_shot
        Runs that compare with nothing: they have rows, and are never bold.
    notes
        What else must be said.
    """
    rows = [_judged_row(item) for item in cells] + [_plain_row(row) for row in rows_of(few_shot)]
    rows.sort(key=lambda row: (math.isnan(row["test"]), -row["test"], row["agg"], row["seg"]))
    first = rows[0]
    metric = first["metric"]
    flags = list(dict.fromkeys(flag for row in rows for flag in row["flags"]))
    columns = {name: [str(row[name]) for row in rows] for name in NAMES if name != "flags"}
    columns[metric] = [_plus_minus(row) for row in rows]
    for name in dict.fromkeys(name for row in rows for name in row["others"]):
        columns[name] = [number(row["others"].get(name)) for row in rows]
    columns |= {
        "val": [number(row["val"]) for row in rows],
        "n": [str(row["n_test"]) for row in rows],
        "seed": [row["seed"] for row in rows],
        **cost_cells(rows),
    }
    if flags:
        columns["flags"] = [",".join(str(flags.index(f) + 1) for f in row["flags"]) for row in rows]
    same = [name for name in SAID_ONCE if len(set(columns[name])) == 1]
    said = "; ".join(f"{name} {columns.pop(name)[0]}" for name in same)
    remarks = dict.fromkeys(
        f"encoder {row['encoder']}: {row['note']}" for row in rows if row["note"]
    )
    warnings = dict.fromkeys(f"warning: {text}" for row in rows for text in row["warnings"])
    return PaperTable(
        title=f"{first['dataset']} · {first['task']}: {metric} on test",
        said=said,
        header=tuple(columns),
        cells=tuple(zip(*columns.values(), strict=True)),
        score=metric,
        bold=tuple(row["bold"] for row in rows),
        notes=(
            *_meaning(cells),
            *remarks,
            *(f"flag {mark}: {flag}" for mark, flag in enumerate(flags, start=1)),
            *cost_notes(rows),
            *warnings,
            *notes,
        ),
    )


def _judged_row(item: JudgedCell) -> dict[str, Any]:
    row, results = item.row, item.cell.results
    metrics = {name for result in results for name in result.scores["test"]} - {row["metric"]}
    found = row["layer_asked"] in ("best", "last")
    return {
        **row,
        "seg": " = ".join([row["seg"], *row["same_seg"]]),
        "agg": " = ".join(
            [with_options(row["aggregation"], row["aggregation_options"]), *row["same_aggregation"]]
        ),
        "layer": f"{row['layer']} ({row['layer_asked']})" if found else row["layer"],
        "seed": ", ".join(map(str, row["seeds"])),
        "others": {
            name: mean(result.scores["test"][name].value for result in results)
            for name in sorted(metrics)
            if all(name in result.scores["test"] for result in results)
        },
        "bold": bool(row["is_reference"] or row["as_good"]),
    }


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    metric = row["metric"]
    return {
        **row,
        "agg": with_options(row["aggregation"], row["aggregation_options"]),
        "seed": str(row["seed"]),
        "test": row[f"test_{metric}"],
        "test_low": row[f"test_{metric}_low"],
        "test_high": row[f"test_{metric}_high"],
        "val": row[f"val_{metric}"],
        "others": {},
        "bold": False,
    }


def _plus_minus(row: Mapping[str, Any]) -> str:
    half = half_interval(row["test_low"], row["test_high"])
    value = number(row["test"])
    return value if math.isnan(half) else f"{value} ± {half:.3f}"


def _meaning(cells: Sequence[JudgedCell]) -> list[str]:
    """What ± and bold mean here."""
    notes = ["±: half the 95 % bootstrap interval over groups, which need not be symmetric"]
    if not cells:
        return notes
    row = cells[0].row
    text = (
        f"bold: the cell that validation chose, and those that lose less than {row['margin']:g} "
        "against it on test, with 95 % confidence"
    )
    if any(item.row["as_good"] is None for item in cells):
        text += f"; fewer than {FEW_GROUPS} groups never show that"
    return [*notes, text]


def markdown_tables(tables: Sequence[PaperTable]) -> str:
    """Write GitHub-flavoured tables; punctuation in names is escaped."""

    def escape(text: str) -> str:
        return MARKDOWN_SPECIAL.sub(r"\\\1", printable(text))

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    parts = []
    for table in tables:
        sides = ["---" if name in NAMES else "---:" for name in table.header]
        lines = [line(map(escape, table.header)), line(sides)]
        lines += [
            line(_emphasised(row, escape, "**{}**", table, at))
            for at, row in enumerate(table.cells)
        ]
        said = "\n".join(map(escape, filter(None, (table.title, table.said))))
        parts += [said, "\n".join(lines), "\n".join(f"- {escape(note)}" for note in table.notes)]
    return "\n\n".join(parts)


def _emphasised(
    row: Sequence[str], escape: Any, bold: str, table: PaperTable, place: int
) -> list[str]:
    return [
        bold.replace("{}", escape(text))
        if table.bold[place] and name == table.score
        else escape(text)
        for name, text in zip(table.header, row, strict=True)
    ]


def latex_escaped(text: str) -> str:
    r"""Write a text so that LaTeX sets it and runs nothing of it.

    Examples
    --------
    >>> print(latex_escaped(r"50% of \input{x} & more"))
    50\% of \textbackslash{}input\{x\} \& more
    """
    return "".join(LATEX.get(character, character) for character in printable(text))


def latex_tables(tables: Sequence[PaperTable]) -> str:
    """Write ``table`` environments with booktabs rules (``\\usepackage{booktabs}``).

    Scripts other than Latin need XeLaTeX or LuaLaTeX.
    """
    parts = [r"% \usepackage{booktabs,textcomp}"]
    for place, table in enumerate(tables, start=1):
        sides = "".join("l" if name in NAMES else "r" for name in table.header)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escaped(f'{table.title}; {table.said}'.rstrip('; '))}.}}",
            rf"\label{{tab:tune-{place}}}",
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            " & ".join(map(latex_escaped, table.header)) + r" \\",
            r"\midrule",
        ]
        lines += [
            " & ".join(_emphasised(row, latex_escaped, r"\textbf{{}}", table, at)) + r" \\"
            for at, row in enumerate(table.cells)
        ]
        lines += [r"\bottomrule", r"\end{tabular}", "", r"\smallskip", r"\footnotesize\raggedright"]
        lines += [f"{latex_escaped(note)}" + r"\par" for note in table.notes]
        parts.append("\n".join([*lines, r"\end{table}"]))
    return "\n\n".join(parts)
